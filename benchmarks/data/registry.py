"""The datasets, by name, as TensorFlow Datasets (TFDS) has prepared them."""

from pathlib import Path
from typing import Literal, NamedTuple

from tokenizers import Tokenizer

from benchmarks.data.images import Decoded, Photographs, Records, Split
from benchmarks.data.prepare import NAMES, Builder, DataError, find, is_prepared, prepare
from benchmarks.data.sequences import Sequences
from benchmarks.data.text import vocabulary_size

__all__ = ["NAMES", "DataError", "Dataset", "Split", "is_text", "kind", "load", "prepare"]

HeldOut = Literal["test", "validation"]


class Dataset(NamedTuple):
    """A split for training and one that training never sees."""

    train: Split
    held_out: Split
    classes: int  # of text the number of different tokens.
    shape: tuple[int, ...]  # of an image: height, width, channels; of text: the length of a sequence.
    mean: tuple[float, ...]  # of each channel of the training images, to normalise with; () of text.
    std: tuple[float, ...]
    augment: str | None  # how training changes images: "crop_flip" pads, crops and flips, "flip" flips.


class _Description(NamedTuple):
    classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str | None
    kept: int = 90  # per cent of the training split that are left when validation takes the rest.
    test: str = "test"  # what TFDS calls the split on which figures are reported.
    split: type[Decoded] | type[Photographs] = Decoded


def _of_255(*fractions: float) -> tuple[float, ...]:
    return tuple(255 * fraction for fraction in fractions)


_DESCRIPTIONS = {
    "digits": _Description(10, (8, 8, 1), (4.8855,), (6.0156,), None, kept=75),
    "fashion_mnist": _Description(10, (28, 28, 1), _of_255(0.28604), _of_255(0.35302), "flip"),
    "cifar10": _Description(
        10, (32, 32, 3), _of_255(0.4914, 0.4822, 0.4465), _of_255(0.2470, 0.2435, 0.2616), "crop_flip"
    ),
    "cifar100": _Description(
        100, (32, 32, 3), _of_255(0.5071, 0.4865, 0.4409), _of_255(0.2673, 0.2564, 0.2762), "crop_flip"
    ),
    "imagenet2012": _Description(
        1000,
        (224, 224, 3),
        _of_255(0.485, 0.456, 0.406),
        _of_255(0.229, 0.224, 0.225),
        "flip",
        test="validation",  # the labels of ImageNet's own test split are secret.
        split=Photographs,
    ),
}


# How many sequences of text are called an epoch. Few enough for a curve to have points: the 5,000 batches
# of STACEY's paper are ten epochs of C4.
_PER_EPOCH = {"stdlib": 2_048, "austen": 2_048, "c4": 8_000}
_NEED_NO_FILES = ("digits", "stdlib")


def is_text(name: str) -> bool:
    """Says whether a dataset is text, and not images."""
    return name in _PER_EPOCH


def kind(name: str) -> str:
    """Returns what the examples of a dataset are."""
    return "sequences" if is_text(name) else "images"


def load(name: str, *, held_out: HeldOut = "test", data_dir: Path | None = None) -> Dataset:
    """Opens a prepared dataset; the digits and the standard library are prepared here.

    For "validation" a fixed part of the training images is held out, or the text that is for
    that, and the test split is not read. `data_dir` is where TFDS keeps datasets (its own
    default otherwise).
    """
    builder = _open(name, data_dir)
    if is_text(name):
        return _text(builder, held_out, _PER_EPOCH[name])
    description = _DESCRIPTIONS[name]
    train, held = _slices(description, held_out)
    return Dataset(
        description.split(Records(builder, train)),
        description.split(Records(builder, held)),
        *description[:5],
    )


def _text(builder: Builder, held_out: HeldOut, per_epoch: int) -> Dataset:
    tokenizer = Tokenizer.from_str(builder.info.metadata["tokenizer"])
    return Dataset(
        Sequences(Records(builder, "train"), per_epoch),
        Sequences(Records(builder, held_out)),
        vocabulary_size(tokenizer),
        (builder.LENGTH,),
        mean=(),
        std=(),
        augment=None,
    )


def _slices(description: _Description, held_out: HeldOut) -> tuple[str, str]:
    if held_out == "test":
        return "train", description.test
    return f"train[:{description.kept}%]", f"train[{description.kept}%:]"


def _open(name: str, data_dir: Path | None) -> Builder:
    builder = find(name, data_dir)
    if is_prepared(builder):
        return builder
    if name not in _NEED_NO_FILES:
        raise DataError(_missing(builder, data_dir))
    prepare(name, data_dir=data_dir)
    return find(name, data_dir)


def _missing(builder: Builder, data_dir: Path | None) -> str:
    command = f"python -m benchmarks prepare {builder.name}"
    if data_dir is not None:
        command += f" --data-dir {data_dir}"
    if builder.name == "imagenet2012":
        command += " --source DIR, where DIR has ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    if builder.name == "c4":
        command += " --source DIR, where DIR is a folder of TensorFlow Datasets that has c4/en"
    return f"{builder.name} is not in {builder.data_dir_root}; get it with: {command}"
