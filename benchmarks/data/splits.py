"""Splits of a prepared dataset: images in memory, photographs that are decoded when loaded, and text."""

import io
import math
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageOps

from benchmarks.data.prepare import Builder, damaged_folder

SIZE = (224, 224)  # of a photograph that is loaded.
MARGIN = (1 - 224 / 256) / 2  # of a photograph that is evaluated: what is left out on each side.
AREA = (0.08, 1.0)  # of a random crop, as a share of the photograph.
RATIO = (3 / 4, 4 / 3)  # of a random crop, width to height.

Box = tuple[int, int, int, int]  # left, top, right, bottom.
Seed = tuple[int, ...]  # of the run, and then the epoch.


class Split(Protocol):
    """Labelled examples, loaded by index; several threads may load at once."""

    def __len__(self) -> int:
        """Returns the number of examples in an epoch."""
        ...

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns uint8 images [n, height, width, channels] and int32 labels [n].

        Of text they are int32 tokens [n, length] and the tokens after them. The seed decides what
        is random in loading them. Without it, as in evaluation, nothing is random.
        """
        ...


class Records:
    """Examples as they are stored, with encoded images."""

    def __init__(self, builder: Builder, split: str) -> None:
        """Opens a split, which may be a slice, of a prepared dataset."""
        # TFDS decodes with OpenCV where there is one, else with Pillow, which may differ in the last bit.
        encoded = {"image"} & set(builder.info.features)
        decoders = {name: tfds.decode.SkipDecoding() for name in encoded}
        self._source = builder.as_data_source(split, decoders=decoders)
        self._folder = builder.data_dir

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._source)

    def read(self, indices: np.ndarray) -> list[dict[str, Any]]:
        """Returns the examples at these places."""
        try:
            return self._source.__getitems__(indices.tolist())
        except RuntimeError as error:  # which array_record raises for all that is wrong with a file.
            raise damaged_folder(self._folder) from error

    def read_all(self) -> list[dict[str, Any]]:
        """Returns all examples."""
        return self.read(np.arange(len(self)))


class SmallImages:
    """Small images of one size, all in memory."""

    def __init__(self, records: Records) -> None:
        """Decodes them all."""
        examples = records.read_all()
        images = np.stack([np.asarray(_open(example)) for example in examples])
        # Grey images have no axis of channels.
        self.images = images if images.ndim == 4 else images[..., None]
        self.labels = _labels(examples)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels; nothing is random."""
        return self.images[indices], self.labels[indices]


class Photographs:
    """Photographs of any size: each is decoded and cropped to 224 x 224 when it is loaded."""

    def __init__(self, records: Records) -> None:
        """Reads nothing yet."""
        self._records = records

    def __len__(self) -> int:
        """Returns the number of photographs."""
        return len(self._records)

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns crops and labels; a random crop depends on the seed and its index, on nothing else."""
        examples = self._records.read(indices)
        crops = np.empty((len(indices), *SIZE, 3), np.uint8)
        for crop, index, example in zip(crops, indices, examples, strict=True):
            photograph = _open(example).convert("RGB")  # a few are grey, or have CMYK.
            crop[:] = np.asarray(
                _central(photograph) if seed is None else _random(photograph, (*seed, int(index)))
            )
        return crops, _labels(examples)


class Sequences:
    """Sequences of tokens, all in memory. An epoch may have fewer of them: then the next has others."""

    def __init__(self, records: Records, per_epoch: int | None = None) -> None:
        """Decodes them all, and shuffles those of which an epoch has some only."""
        tokens = np.stack([example["tokens"] for example in records.read_all()])
        self.tokens = tokens if per_epoch is None else np.random.default_rng(0).permutation(tokens)
        self._per_epoch = min(per_epoch or len(tokens), len(tokens))

    def __len__(self) -> int:
        """Returns the number of sequences in an epoch."""
        return self._per_epoch

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns tokens [n, length], and at each place the token after it.

        Epochs go through all sequences in turn.
        """
        chosen = self.tokens[_in_turn(self, indices, seed, len(self.tokens))]
        return chosen[:, :-1], chosen[:, 1:]


class Excerpt:
    """The first examples of a split, in memory. An epoch may have fewer: then the next has others."""

    def __init__(self, split: Split, size: int, *, halved: bool, per_epoch: int | None = None) -> None:
        """Loads them."""
        inputs, self.labels = split.load(np.arange(min(size, len(split))), None)
        self.inputs = halve(inputs) if halved else inputs
        self._per_epoch = min(per_epoch or len(self.labels), len(self.labels))

    def __len__(self) -> int:
        """Returns the number of examples in an epoch."""
        return self._per_epoch

    def load(self, indices: np.ndarray, seed: Seed | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and labels; epochs go through all of them in turn."""
        chosen = _in_turn(self, indices, seed, len(self.labels))
        return self.inputs[chosen], self.labels[chosen]


def _in_turn(split: Split, indices: np.ndarray, seed: Seed | None, total: int) -> np.ndarray:
    """Returns the places of examples of an epoch among all."""
    epoch = 0 if seed is None else seed[-1]
    return (epoch * len(split) + indices) % total


def halve(images: np.ndarray) -> np.ndarray:
    """Returns the means over squares of four pixels."""
    n, height, width, channels = images.shape
    squares = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return squares.mean(axis=(2, 4)).round().astype(images.dtype)


def _open(example: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(example["image"]), formats=("PNG", "JPEG"))


def _labels(examples: list[dict[str, Any]]) -> np.ndarray:
    return np.array([example["label"] for example in examples], np.int32)


def _central(photograph: Image.Image) -> Image.Image:
    return ImageOps.fit(photograph, SIZE, Image.Resampling.BILINEAR, bleed=MARGIN)


def _random(photograph: Image.Image, seed: Seed) -> Image.Image:
    box = random_box(*photograph.size, np.random.default_rng(seed))
    return photograph.resize(SIZE, Image.Resampling.BILINEAR, box=box)


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """Returns a box of random area and ratio within a photograph, as is usual for ImageNet."""
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers([width - w, height - h], endpoint=True).tolist()
            return left, top, left + w, top + h
    # A narrow photograph: as much of its middle as the ratios allow.
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
