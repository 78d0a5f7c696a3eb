"""Bundles on the Hugging Face Hub: `owner/name`, or `owner/name@revision`. Needs the `hub` extra."""

from rekd_edge.hub.download import download
from rekd_edge.hub.push import Pushed, push

__all__ = ["Pushed", "download", "push"]
