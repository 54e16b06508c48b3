"""The datasets, by name: each is an entry here, and TensorFlow Datasets (TFDS) prepares and reads it."""

from functools import partial
from pathlib import Path

import tensorflow_datasets as tfds

from benchmarks.data import prepare as preparation
from benchmarks.data import text
from benchmarks.data.arrays import LETTERS_FILE, LETTERS_MEAN, LETTERS_STD, Arrays, Letters, Mnist1d
from benchmarks.data.corpora import AUSTEN_FILE
from benchmarks.data.digits import Digits
from benchmarks.data.entries import Dataset, HeldOut, Labelled, Origin, Part, Text
from benchmarks.data.objectives import DENOISING, RECONSTRUCTION, Objective
from benchmarks.data.prepare import Builder, DataError, damaged_folder, is_prepared
from benchmarks.data.splits import Photographs, Split

__all__ = ["NAMES", "DataError", "Dataset", "Split", "is_text", "kind", "load", "objective_of", "prepare"]


def _of_255(*fractions: float) -> tuple[float, ...]:
    return tuple(255 * fraction for fraction in fractions)


AUSTEN = preparation.debian_package(
    "r-cran-janeaustenr", "/usr/lib/R/site-library/janeaustenr/data", AUSTEN_FILE
)

LETTERS = preparation.debian_package("r-cran-mlbench", "/usr/lib/R/site-library/mlbench/data", LETTERS_FILE)

DATASETS: dict[str, Labelled | Text] = {
    "digits": Labelled(
        Origin(comes_with="scikit-learn", builder=Digits, tensorflow=False),
        10,
        (8, 8, 1),
        mean=(4.8855,),
        std=(6.0156,),
        augment=None,
        kept=75,
    ),
    "fashion_mnist": Labelled(
        Origin(preparation.fashion_mnist), 10, (28, 28, 1), _of_255(0.28604), _of_255(0.35302), "flip"
    ),
    "cifar10": Labelled(
        Origin(preparation.archives),
        10,
        (32, 32, 3),
        _of_255(0.4914, 0.4822, 0.4465),
        _of_255(0.2470, 0.2435, 0.2616),
        "crop_flip",
    ),
    "cifar100": Labelled(
        Origin(preparation.archives),
        100,
        (32, 32, 3),
        _of_255(0.5071, 0.4865, 0.4409),
        _of_255(0.2673, 0.2564, 0.2762),
        "crop_flip",
    ),
    "imagenet2012": Labelled(
        Origin(preparation.tar_files, named="has ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"),
        1000,
        (224, 224, 3),
        _of_255(0.485, 0.456, 0.406),
        _of_255(0.229, 0.224, 0.225),
        "flip",
        test="validation",  # the labels of ImageNet's own test split are secret.
        split=Photographs,
    ),
    "letters": Labelled(
        Origin(LETTERS, builder=Letters, tensorflow=False),
        26,
        (16,),
        mean=LETTERS_MEAN,
        std=LETTERS_STD,
        augment=None,
        kept=75,
        split=Arrays,
        examples="rows",
    ),
    "mnist1d": Labelled(
        Origin(comes_with="mnist1d", builder=Mnist1d, tensorflow=False),
        10,
        (40, 1),
        mean=(),
        std=(),
        augment=None,
        kept=80,
        split=Arrays,
        examples="signals",
    ),
    "stdlib": Text(Origin(comes_with="Python", builder=text.Stdlib, tensorflow=False), 2_048),
    "austen": Text(Origin(AUSTEN, builder=text.Austen, tensorflow=False), 2_048),
    "c4": Text(
        Origin(
            preparation.prepared_by_tfds,
            builder=text.C4,
            named="is a folder of TensorFlow Datasets that has c4/en",
        ),
        8_000,
    ),
}
_FASHION = Part("fashion_mnist", 12_800, 2_000, halved=True, test=2_000, per_epoch=1_600)
PARTS = {
    "digits_900": Part("digits", 900, 300),
    "fashion_mnist_14x14": Part("fashion_mnist", 6_400, 2_000, halved=True),
    "stdlib_1536": Part("stdlib", 1_536, 256),
    # Of the suite of workloads.
    "fashion_mnist_12800": _FASHION,
    "fashion_mnist_12800_pixels": _FASHION._replace(objective=RECONSTRUCTION, per_epoch=6_400),
    "fashion_mnist_12800_noise": _FASHION._replace(
        objective=DENOISING, validation=1_000, test=1_000, per_epoch=800
    ),
    "letters_12000": Part("letters", 12_000, 2_000, test=2_000),
    "mnist1d_3200": Part("mnist1d", 3_200, 800),
    "stdlib_2048": Part("stdlib", 2_048, 256, test=256, per_epoch=384),
    "austen_2048": Part("austen", 2_048, 256, test=256, per_epoch=384),
}
NAMES = (*DATASETS, *PARTS)


def is_text(name: str) -> bool:
    """Says whether a dataset is text, and not images."""
    return isinstance(DATASETS[_whole(name)], Text)


def objective_of(name: str) -> Objective:
    """Returns what the examples of a dataset are for."""
    of_part = PARTS[name].objective if name in PARTS else None
    return of_part or DATASETS[_whole(name)].objective


def kind(name: str) -> str:
    """Returns what the examples of a dataset are, and what is to be done with them if not the usual."""
    return f"{DATASETS[_whole(name)].examples} {objective_of(name).asks}".strip()


def _whole(name: str) -> str:
    return PARTS[name].of if name in PARTS else name


def load(name: str, *, held_out: HeldOut = "test", data_dir: Path | None = None) -> Dataset:
    """Opens a prepared dataset; what needs no files is prepared here.

    For "validation" a fixed part of the training images is held out, or the text that is for
    that, and the test split is not read. `data_dir` is where TFDS keeps datasets (its own
    default otherwise).
    """
    if name in PARTS:
        return PARTS[name].cut(load(PARTS[name].of, held_out=held_out, data_dir=data_dir), held_out)
    builder = _find(name, data_dir)
    if not is_prepared(builder):
        if not DATASETS[name].origin.comes_with:
            raise DataError(_missing(builder, data_dir))
        prepare(name, data_dir=data_dir)
        builder = _find(name, data_dir)
    return DATASETS[name].open(builder, held_out)


def prepare(name: str, *, data_dir: Path | None = None, source: Path | None = None) -> Path:
    """Makes a dataset ready, if it is not yet; returns its folder.

    `data_dir` is where TFDS keeps datasets (its own default otherwise). `source` is a folder
    with the files as they are published, which ImageNet needs and the others can do without;
    for C4 it is a folder of TFDS. A part is made ready with its whole.
    """
    name = _whole(name)
    builder, origin = _find(name, data_dir), DATASETS[name].origin
    if source is not None and origin.comes_with:
        raise DataError(f"{name} comes with {origin.comes_with}: it takes no --source")
    if not is_prepared(builder):
        if origin.tensorflow:
            preparation.require_tensorflow(name)
        preparation.build(builder, origin.source, source)
        builder = _find(name, data_dir)
        if not is_prepared(builder):  # TFDS leaves a folder alone that exists, whatever is in it.
            raise damaged_folder(builder.data_dir)
    return Path(builder.data_dir)


def _find(name: str, data_dir: Path | None) -> Builder:
    if name not in DATASETS:
        raise DataError(f"there is no dataset {name}, but {', '.join(NAMES)}")
    # Not by TFDS's registry if the builder is ours: it has a C4 of its own.
    return preparation.find(name, DATASETS[name].origin.builder or partial(tfds.builder, name), data_dir)


def _missing(builder: Builder, data_dir: Path | None) -> str:
    command = f"python -m benchmarks prepare {builder.name}"
    if data_dir is not None:
        command += f" --data-dir {data_dir}"
    if named := DATASETS[builder.name].origin.named:
        command += f" --source DIR, where DIR {named}"
    return f"{builder.name} is not in {builder.data_dir_root}; get it with: {command}"
