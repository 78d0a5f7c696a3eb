"""`builtin:digits`: scikit-learn's 1,797 scanned digits of 8 x 8 pixels (UCI optical recognition, test part)."""

from __future__ import annotations

import numpy as np

from rekd_edge.data.examples import DataSource, EncodedImages, Examples
from rekd_edge.data.sampling import stratified_split

__all__ = ["digits"]


def digits(seed: int) -> DataSource:
    """Images in ten classes, split 60 / 20 / 20 by `seed`, as balanced as the data."""
    from datasets import Dataset, Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = np.rint(scans.images * (255 / 16)).astype(np.uint8)  # [images, 8, 8], 0 to 16 before
    # A binary PGM is a header and the pixels: the same bytes, and fingerprint, whatever library writes it.
    cells = [{"bytes": b"P5 8 8 255\n" + image.tobytes(), "path": None} for image in pixels]
    table = Dataset.from_dict({"image": cells}).cast_column("image", Image(decode=False))
    everything = Examples(EncodedImages(table, "image"), scans.target.astype(np.int64))

    train, held_out = stratified_split(everything.labels, 0.4, seed)
    validation, test = stratified_split(everything.labels[held_out], 0.5, seed)
    splits = {"train": train, "validation": held_out[validation], "test": held_out[test]}

    return DataSource(
        "image",
        [str(name) for name in scans.target_names],
        {name: everything.select(indices) for name, indices in splits.items()},
    )
