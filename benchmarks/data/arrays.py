"""Tables and signals as datasets of TFDS: rows of numbers with a class each, in memory."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import tensorflow_datasets as tfds

from benchmarks.data.splits import Records, Seed

DownloadManager: TypeAlias = tfds.download.DownloadManager
Labelled: TypeAlias = tuple[np.ndarray, np.ndarray]  # float32 inputs [n, ...] and classes [n].

LETTERS_FILE = "LetterRecognition.rda"
LETTERS_TEST = 4_000  # the last of them, as their authors split them.
# Of each measure in the first 12,000 rows.
LETTERS_MEAN = (4.0, 7.0, 5.1, 5.3, 3.5, 6.9, 7.5, 4.6, 5.2, 8.3, 6.5, 7.9, 3.1, 8.3, 3.7, 7.8)
LETTERS_STD = (1.9, 3.3, 2.0, 2.3, 2.2, 2.0, 2.3, 2.7, 2.4, 2.5, 2.6, 2.1, 2.3, 1.6, 2.6, 1.6)


class Arrays:
    """Numbers with a class each, all in memory."""

    def __init__(self, records: Records) -> None:
        """Reads them all."""
        examples = records.read_all()
        self.inputs = np.stack([example["input"] for example in examples])
        self.labels = np.array([example["label"] for example in examples], np.int32)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.labels)

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 inputs and labels; nothing is random."""
        return self.inputs[indices], self.labels[indices]


class LabelledArrays(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
    """Inputs of one shape with a class each."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE: ClassVar[tuple[int, ...]]
    CLASSES: ClassVar[int]

    def arrays(self, source: DownloadManager) -> dict[str, Labelled]:
        """Returns the train and test split, which may come from the folder `source.manual_dir`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "input": tfds.features.Tensor(shape=self.SHAPE, dtype=np.float32),
            "label": tfds.features.ClassLabel(num_classes=self.CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: DownloadManager) -> dict[str, Any]:
        return {name: self._generate_examples(*split) for name, split in self.arrays(dl_manager).items()}

    def _generate_examples(self, inputs: np.ndarray, labels: np.ndarray) -> Iterator[Any]:
        for key, (row, label) in enumerate(zip(inputs, labels, strict=True)):
            yield key, {"input": row.astype(np.float32), "label": int(label)}


class Letters(LabelledArrays):
    """Letter Recognition: 16 measures of 20,000 printed capital letters, by Frey and Slate."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "R's file of the table"
    SHAPE, CLASSES = (16,), 26

    def arrays(self, source: DownloadManager) -> dict[str, Labelled]:
        """Returns the table's rows, from an R package."""
        return letters(Path(source.manual_dir))


class Mnist1d(LabelledArrays):
    """MNIST-1D: 5,000 signals of 40 points, as the authors' own code generates them."""

    SHAPE, CLASSES = (40, 1), 10

    def arrays(self, source: DownloadManager) -> dict[str, Labelled]:
        """Returns what that code generates by default."""
        from mnist1d.data import make_dataset  # imports slow packages.

        made = make_dataset()
        return {
            "train": (made["x"][..., None], made["y"]),
            "test": (made["x_test"][..., None], made["y_test"]),
        }


def letters(folder: Path) -> dict[str, Labelled]:
    """Returns the measures and the letters, numbered in their order."""
    import rdata  # it takes seconds to import, and nothing else needs it.

    file = io.BytesIO((folder / LETTERS_FILE).read_bytes())
    (table,) = rdata.read_rda(file, default_encoding="utf-8").values()
    inputs, labels = table.iloc[:, 1:].to_numpy(np.float32), table.iloc[:, 0].cat.codes.to_numpy()
    return {
        "train": (inputs[:-LETTERS_TEST], labels[:-LETTERS_TEST]),
        "test": (inputs[-LETTERS_TEST:], labels[-LETTERS_TEST:]),
    }
