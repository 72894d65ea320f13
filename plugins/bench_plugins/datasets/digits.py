"""Handwritten digits that come with scikit-learn: a dataset without a download."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from bench.kinds import Dataset, Split

__all__ = ["digits"]


def digits(root: Path) -> Dataset:  # noqa: ARG001 -- the core hands over a folder; scikit-learn brings its own
    """1,797 scanned digits of 8 x 8 pixels, grey, from scikit-learn.

    One split, "train", which the core divides; 10 classes; uint8 N,H,W (the 17 grey levels spread over 0..255).
    `root` is not used. Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49 (the test part).
    """
    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)
    ids = [f"digits/{position:04d}" for position in range(len(images))]
    split = Split(images=images, labels=scans.target.astype(np.int64), ids=ids)
    return Dataset(classes=tuple("0123456789"), splits={"train": split}, channels=1)
