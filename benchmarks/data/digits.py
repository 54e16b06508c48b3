"""scikit-learn's digits as a dataset of TFDS, so that all datasets are read in one way."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Digits(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """1,797 real handwritten digits, 8 x 8: 1,200 to train and 597 to test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        # The order of `splits` is kept.
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {name: self._generate_examples(*split) for name, split in splits().items()}

    def _generate_examples(self, pixels: np.ndarray, labels: np.ndarray) -> Iterator[Any]:
        for key, (row, label) in enumerate(zip(pixels, labels, strict=True)):
            # As PIL images: TFDS would encode arrays with TensorFlow, which nothing else here needs.
            yield key, {"image": Image.fromarray(row.reshape(8, 8).astype(np.uint8)), "label": int(label)}


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the pixels [n, 64], from 0 to 16, and labels [n] of each split."""
    pixels, labels = load_digits(return_X_y=True)
    train, test = _parts(np.arange(len(labels)), labels, test_size=597)
    # The last quarter of the training split, which validation holds out, has all digits equally too.
    train = np.concatenate(_parts(train, labels[train], test_size=300))
    return {"train": (pixels[train], labels[train]), "test": (pixels[test], labels[test])}


def _parts(indices: np.ndarray, labels: np.ndarray, test_size: int) -> list[np.ndarray]:
    return list(train_test_split(indices, stratify=labels, test_size=test_size, random_state=0))
