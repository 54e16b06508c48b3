"""Tiny datasets in the formats of the published ones, made ready as those are.

`python -m tests.archives DIR` puts `cifar10` and `imagenet2012` into DIR, for `--data-dir DIR`; the
names of others may follow.
Their content is made up: nothing that is measured on them says anything about CIFAR, ImageNet or C4.
"""

import contextlib
import io
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.data.prepare import quiet
from benchmarks.data.registry import prepare

# As TFDS labels the first files of ImageNet's validation split, so that training can learn them.
# fmt: off
SYNSETS = (
    "n01751748", "n09193705", "n02105855", "n04263257",
    "n03125729", "n01735189", "n02346627", "n02776631",
    "n03794056", "n02328150", "n01917289", "n02125311",
    "n02484975", "n04065272", "n03496892", "n02066245",
)
# fmt: on
PHOTOGRAPH = (375, 500, 3)  # the usual size in ImageNet: height, width, channels.


def write_cifar10(folder, train=640, test=100):
    """Writes the archive of CIFAR-10; the training images are spread over five files."""
    rng = np.random.default_rng(0)
    files = {f"data_batch_{part}.bin": _cifar(rng, train // 5, 10) for part in range(1, 6)}
    files |= {"test_batch.bin": _cifar(rng, test, 10), "batches.meta.txt": _names(10)}
    _write_tar(folder / "cifar-10-binary.tar.gz", _within("cifar-10-batches-bin", files), "w:gz")


def write_cifar100(folder, train=200, test=100):
    """Writes the archive of CIFAR-100, whose images have a coarse label too."""
    rng = np.random.default_rng(1)
    files = {"train.bin": _cifar(rng, train, 100, 20), "test.bin": _cifar(rng, test, 100, 20)}
    files |= {"coarse_label_names.txt": _names(20), "fine_label_names.txt": _names(100)}
    _write_tar(folder / "cifar-100-binary.tar.gz", _within("cifar-100-binary", files), "w:gz")


def write_imagenet2012(folder, train=160, validation=16):
    """Writes both tar files of ImageNet, where a few photographs are grey or have CMYK."""
    rng = np.random.default_rng(2)
    synsets = {
        f"{synset}.tar": _tar_of(
            {f"{synset}_{i}.JPEG": _photograph(rng, label, i) for i in range(train // len(SYNSETS))}
        )
        for label, synset in enumerate(SYNSETS)
    }
    _write_tar(folder / "ILSVRC2012_img_train.tar", synsets)
    photographs = {
        f"ILSVRC2012_val_{i + 1:08}.JPEG": _photograph(rng, i % len(SYNSETS), i) for i in range(validation)
    }
    _write_tar(folder / "ILSVRC2012_img_val.tar", photographs)


class C4(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Made-up documents with the features of TFDS's C4."""

    VERSION = tfds.core.Version("3.1.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="en")]

    def _info(self):
        names = ("content-length", "content-type", "text", "timestamp", "url")
        features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 60), "validation": self._generate_examples(1, 20)}

    def _generate_examples(self, seed, count):
        rng = np.random.default_rng(seed)
        for key in range(count):
            text = " ".join(f"word{number}" for number in rng.integers(0, 50, 200))
            yield key, {**dict.fromkeys(self.info.features, ""), "text": f"{seed} {key}: {text} é"}


def write_c4(folder):
    """Writes a folder of TFDS that has C4, in the format that is its usual one."""
    with quiet():
        C4(data_dir=folder).download_and_prepare()


WRITERS = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "imagenet2012": write_imagenet2012,
    "c4": write_c4,
}


def prepare_tiny(name, data_dir):
    """Writes the archives of a dataset and makes it ready in the folder."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        WRITERS[name](source)
        if name == "c4":
            return prepare(name, data_dir=data_dir, source=source)
        with registered(name, source):
            return prepare(name, data_dir=data_dir, source=source)


@contextlib.contextmanager
def registered(name, source):
    """Has TFDS, which knows the checksums of the published files, expect those in the folder instead."""
    builder = tfds.builder_cls(name)
    compute = tfds.download.checksums.compute_url_info
    infos = {url: compute(source / url.rpartition("/")[2]) for url in builder.url_infos}
    with mock.patch.object(builder, "url_infos", infos):
        yield


def _cifar(rng, count, *classes):
    """Returns records: a byte for each label (the finest last), and 3 x 32 x 32 bytes."""
    fine = np.arange(count) % classes[0]
    labels = [fine % size for size in reversed(classes)]
    images = _colours(fine)[:, :, None] + rng.integers(-50, 50, (count, 3, 1024))
    return np.column_stack([*labels, images.reshape(count, -1)]).astype(np.uint8).tobytes()


def _colours(labels):
    # One for each label, far from black and white.
    return 60 + np.outer(labels + 1, (37, 59, 83)) % 136


def _photograph(rng, label, index):
    """Returns a JPEG; the first two of a kind have other modes."""
    noise = rng.integers(-50, 50, (6, 8, 3)) + _colours(np.array([label]))
    image = Image.fromarray(noise.astype(np.uint8)).resize(PHOTOGRAPH[1::-1], Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.convert({0: "L", 1: "CMYK"}.get(index, "RGB")).save(content, "JPEG")
    return content.getvalue()


def _names(count):
    return "".join(f"class {i}\n" for i in range(count)).encode()


def _within(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def _tar_of(files):
    content = io.BytesIO()
    _add(content, files, "w")
    return content.getvalue()


def _write_tar(path, files, mode="w"):
    with path.open("wb") as file:
        _add(file, files, mode)


def _add(file, files, mode):
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    directory, *names = sys.argv[1:]
    for tiny in names or ("cifar10", "imagenet2012"):
        print(prepare_tiny(tiny, Path(directory)))
