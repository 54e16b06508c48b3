"""Images of a split: decoded once into memory, or each time they are loaded."""

import io
import math
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.data.prepare import Builder, damaged_folder

SIZE = 224  # of a photograph that is loaded, height and width.
EVALUATED_SHORT_SIDE = 256
AREA = (0.08, 1.0)  # of a random crop, as a share of the photograph.
RATIO = (3 / 4, 4 / 3)  # of a random crop, width to height.

Box = tuple[int, int, int, int]  # left, top, right, bottom.


class Split(Protocol):
    """Labelled images, or text, loaded by index; several threads may load at once."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def load(self, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns uint8 images [n, height, width, channels] and int32 labels [n].

        Of text they are int32 tokens [n, length] and the tokens after them. `seed` is that of
        the run and the epoch, which decide the random crops that are cut while decoding, or
        the part of the text. Without it, as in evaluation, nothing is random.
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

    def read(self, keys: list[int]) -> list[dict[str, Any]]:
        """Returns the examples at these places."""
        try:
            return self._source.__getitems__(keys)
        except RuntimeError as error:  # which array_record raises for all that is wrong with a file.
            raise damaged_folder(self._folder) from error


class Decoded:
    """Small images of one size, all in memory."""

    def __init__(self, source: Records) -> None:
        """Decodes them all."""
        examples = source.read(list(range(len(source))))
        images = np.stack([np.asarray(_open(example)) for example in examples])
        # Grey images have no axis of channels.
        self.images = images if images.ndim == 4 else images[..., None]
        self.labels = _labels(examples)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def load(self, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns images and labels; nothing is random."""
        return self.images[indices], self.labels[indices]


class Photographs:
    """Photographs of any size: each is decoded and cropped to 224 x 224 when it is loaded."""

    def __init__(self, source: Records) -> None:
        """Reads nothing yet."""
        self._source = source

    def __len__(self) -> int:
        """Returns the number of photographs."""
        return len(self._source)

    def load(self, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns crops and labels; a random crop depends on the seed and its index, on nothing else."""
        keys = [int(index) for index in indices]
        examples = self._source.read(keys)
        crops = np.empty((len(keys), SIZE, SIZE, 3), np.uint8)
        for crop, key, example in zip(crops, keys, examples, strict=True):
            photograph = _open(example).convert("RGB")  # a few are grey, or have CMYK.
            crop[:] = np.asarray(_central(photograph) if seed is None else _random(photograph, (*seed, key)))
        return crops, _labels(examples)


def _open(example: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(example["image"]), formats=("PNG", "JPEG"))


def _labels(examples: list[dict[str, Any]]) -> np.ndarray:
    return np.array([example["label"] for example in examples], np.int32)


def _central(photograph: Image.Image) -> Image.Image:
    scale = EVALUATED_SHORT_SIDE / min(photograph.size)
    width, height = (round(scale * side) for side in photograph.size)
    resized = photograph.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop(_middle(width, height, SIZE, SIZE))


def _random(photograph: Image.Image, seed: tuple[int, ...]) -> Image.Image:
    box = random_box(*photograph.size, np.random.default_rng(seed))
    return photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """Returns a box of random area and ratio within a photograph, as is usual for ImageNet."""
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(rng.integers(room, endpoint=True)) for room in (width - w, height - h))
            return left, top, left + w, top + h
    # A narrow photograph: as much of its middle as the ratios allow.
    return _middle(width, height, min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0])))


def _middle(width: int, height: int, w: int, h: int) -> Box:
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
