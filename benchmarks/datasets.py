"""The datasets, by name: arrays in memory, in three splits that never mix."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Split(NamedTuple):
    """Labelled images."""

    images: np.ndarray  # [n, height, width, channels] float32.
    labels: np.ndarray  # [n] int32.


class Dataset(NamedTuple):
    """Splits for training, for choosing hyperparameters, and for the reported figures."""

    train: Split
    validation: Split
    test: Split
    classes: int


def _digits() -> Dataset:
    """scikit-learn's digits: 1,797 real handwritten digits, 8 x 8, split 900 / 300 / 597."""
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 8, 8, 1).astype(np.float32)
    labels = labels.astype(np.int32)
    images, test_images, labels, test_labels = train_test_split(
        images, labels, test_size=597, stratify=labels, random_state=0
    )
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels, test_size=300, stratify=labels, random_state=0
    )
    mean, std = images.mean(), images.std()
    return Dataset(
        train=Split((images - mean) / std, labels),
        validation=Split((validation_images - mean) / std, validation_labels),
        test=Split((test_images - mean) / std, test_labels),
        classes=10,
    )


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": _digits}
