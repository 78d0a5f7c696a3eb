"""Data: a SPEC to examples with labels, and these to features and batches."""

from rekd_edge.data.examples import DataSource, Examples
from rekd_edge.data.features import ImageCollator, ImageFeatures, TextCollator, TextFeatures
from rekd_edge.data.planted import PLANTED_CUE_RATIO
from rekd_edge.data.settings import DataSettings
from rekd_edge.data.sources import load_data
from rekd_edge.data.tokenizer import train_tokenizer, word_starts

__all__ = [
    "PLANTED_CUE_RATIO",
    "DataSettings",
    "DataSource",
    "Examples",
    "ImageCollator",
    "ImageFeatures",
    "TextCollator",
    "TextFeatures",
    "load_data",
    "train_tokenizer",
    "word_starts",
]
