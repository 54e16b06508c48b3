"""What a dataset is, opened and as an entry of the registry."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from tokenizers import Tokenizer

from benchmarks.data import text
from benchmarks.data.arrays import Arrays
from benchmarks.data.objectives import CLASSES, NEXT_TOKENS, Objective
from benchmarks.data.prepare import Builder, Source
from benchmarks.data.splits import Excerpt, Photographs, Records, Sequences, SmallImages, Split

HeldOut = Literal["test", "validation"]


class Dataset(NamedTuple):
    """A split for training and one that training never sees."""

    train: Split
    held_out: Split
    classes: int  # of text the number of different tokens.
    shape: tuple[int, ...]  # of an image: height, width, channels; of text: the length of a sequence.
    mean: tuple[float, ...] = ()  # of each channel of the training images, to normalise with; () of text.
    std: tuple[float, ...] = ()
    augment: str | None = None  # how training changes images: "crop_flip" pads, crops, flips; "flip" flips.
    objective: Objective = CLASSES


class Origin(NamedTuple):
    """How a dataset is made ready."""

    source: Source | None = None  # of its files, if it has any.
    comes_with: str = ""  # the package that brings it: then it is made ready when it is first read.
    builder: Callable[..., Builder] | None = None  # TFDS's own if there is no other.
    tensorflow: bool = True  # whether making it ready needs TensorFlow.
    named: str = ""  # what --source has to name, if there is no other way.


class Labelled(NamedTuple):
    """Images, or other arrays, with a class each."""

    origin: Origin
    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str | None
    kept: int = 90  # per cent of the training split that are left when validation takes the rest.
    test: str = "test"  # what TFDS calls the split on which figures are reported.
    split: type[SmallImages] | type[Photographs] | type[Arrays] = SmallImages
    examples: str = "images"
    objective: Objective = CLASSES

    def open(self, builder: Builder, held_out: HeldOut) -> Dataset:
        """Returns the dataset; validation is the end of the training split."""
        names = ("train", self.test)
        if held_out == "validation":
            names = (f"train[:{self.kept}%]", f"train[{self.kept}%:]")
        train, held = (self.split(Records(builder, name)) for name in names)
        return Dataset(train, held, self.classes, self.shape, self.mean, self.std, self.augment)


class Text(NamedTuple):
    """Sequences of tokens, of which so many are called an epoch.

    They are few enough for a curve to have points: the 5,000 batches of STACEY's paper are ten epochs
    of C4.
    """

    origin: Origin
    per_epoch: int
    examples: str = "sequences"
    objective: Objective = NEXT_TOKENS

    def open(self, builder: Builder, held_out: HeldOut) -> Dataset:
        """Returns the dataset; validation is a split of its own."""
        tokenizer = Tokenizer.from_str(builder.info.metadata["tokenizer"])
        return Dataset(
            Sequences(Records(builder, "train"), self.per_epoch),
            Sequences(Records(builder, held_out)),
            text.vocabulary_size(tokenizer),
            (builder.LENGTH,),
            objective=self.objective,
        )


class Part(NamedTuple):
    """The first examples of another dataset, for experiments of many runs."""

    of: str
    train: int
    validation: int
    halved: bool = False  # whether images are reduced to half their height and width.
    test: int | None = None  # how many of the test split; None for all.
    per_epoch: int | None = None  # how many are called an epoch; None for all.
    objective: Objective | None = None  # None for that of the other dataset.

    def cut(self, full: Dataset, held_out: HeldOut) -> Dataset:
        """Returns the part. What is trained on is the same whatever is held out."""
        size = self.validation if held_out == "validation" else self.test or len(full.held_out)
        train = Excerpt(full.train, self.train, halved=self.halved, per_epoch=self.per_epoch)
        return full._replace(
            train=train,
            held_out=Excerpt(full.held_out, size, halved=self.halved),
            shape=train.inputs.shape[1:] if full.mean else full.shape,
            objective=self.objective or full.objective,
        )
