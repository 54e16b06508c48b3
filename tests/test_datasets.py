"""The datasets: their splits, their crops, how they are made ready, and how that fails."""

import gzip
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from benchmarks.data import digits
from benchmarks.data import prepare as preparation
from benchmarks.data.registry import DATASETS, DataError, load, prepare
from benchmarks.data.splits import Photographs, random_box
from tests.archives import WRITERS, registered, write_cifar10

ROOT = Path(__file__).parents[1]
TINY = {"cifar10": (640, 100), "cifar100": (200, 100), "imagenet2012": (160, 16)}
SEED = (0, 3)


def everything(split, seed=None):
    return split.load(np.arange(len(split)), seed)


def examples(images, labels):
    """Returns how often each image occurs with each label."""
    return Counter((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def fingerprints(split):
    """Returns how often each image occurs."""
    return Counter(image.tobytes() for image in everything(split)[0])


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    prepare("digits", data_dir=folder)
    return folder


@pytest.fixture
def photographs(tiny_data):
    return load("imagenet2012", data_dir=tiny_data).train


@pytest.fixture
def damaged(tiny_data, tmp_path):
    """Returns a copy of the tiny CIFAR-10, to be damaged."""
    return shutil.copytree(tiny_data / "cifar10", tmp_path / "cifar10")


# Splits.


def test_the_digits_are_split_without_overlap(digits_data):
    validation = load("digits", held_out="validation", data_dir=digits_data)
    test = load("digits", data_dir=digits_data)
    splits = (validation.train, validation.held_out, test.held_out)
    assert [len(split) for split in splits] == [900, 300, 597]
    images = [set(fingerprints(split)) for split in splits]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]
    for split in splits:
        # All ten digits, about equally often.
        assert np.ptp(np.bincount(split.labels, minlength=10)) <= 5


def test_the_digits_are_those_of_scikit_learn(digits_data):
    pixels, labels = digits.load_digits(return_X_y=True)
    dataset = load("digits", data_dir=digits_data)
    read = [everything(split) for split in (dataset.train, dataset.held_out)]
    assert sum((examples(*split) for split in read), Counter()) == examples(pixels.astype(np.uint8), labels)


def test_the_digits_are_normalised_by_their_training_split(digits_data):
    dataset = load("digits", data_dir=digits_data)
    images, _ = everything(dataset.train)
    assert dataset.mean == pytest.approx([images.mean()], abs=1e-4)
    assert dataset.std == pytest.approx([images.std()], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_dataset_has_the_sizes_it_says(name, tiny_data):
    dataset = load(name, data_dir=tiny_data)
    for split, size in zip((dataset.train, dataset.held_out), TINY[name], strict=True):
        images, labels = everything(split)
        assert len(split) == size
        assert images.shape == (size, *dataset.shape)
        assert images.dtype == np.uint8
        assert labels.shape == (size,)
        assert labels.dtype == np.int32
        assert 0 <= labels.min() <= labels.max() < dataset.classes
    assert len(dataset.mean) == len(dataset.std) == dataset.shape[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_validation_is_a_tenth_of_the_training_split(name, tiny_data):
    dataset = load(name, held_out="validation", data_dir=tiny_data)
    whole = load(name, data_dir=tiny_data).train
    assert len(dataset.held_out) == len(whole) // 10
    # Neither lost nor twice, and the same each time.
    assert fingerprints(dataset.train) + fingerprints(dataset.held_out) == fingerprints(whole)
    again = load(name, held_out="validation", data_dir=tiny_data)
    assert fingerprints(again.held_out) == fingerprints(dataset.held_out)


def test_validation_does_not_read_the_test_split(damaged):
    (test_file,) = damaged.glob("*/cifar10-test.*")
    test_file.unlink()
    everything(load("cifar10", held_out="validation", data_dir=damaged.parent).held_out)
    with pytest.raises(DataError, match="damaged or incomplete"):
        load("cifar10", data_dir=damaged.parent)


def test_cifar_10_is_read_bit_for_bit(tiny_data, tmp_path):
    write_cifar10(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz") as archive:
        content = archive.extractfile("cifar-10-batches-bin/test_batch.bin").read()
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    read = everything(load("cifar10", data_dir=tiny_data).held_out)
    assert examples(*read) == examples(images, records[:, 0])


def test_cifar_100_has_its_fine_labels(tiny_data):
    _, labels = everything(load("cifar100", data_dir=tiny_data).train)
    assert set(labels) == set(range(100))


# Crops.


def test_a_crop_does_not_depend_on_the_batch(photographs):
    alone, _ = photographs.load(np.array([7]), SEED)
    together, _ = photographs.load(np.array([3, 7, 1]), SEED)
    assert (alone[0] == together[1]).all()


def test_threads_load_what_one_would(tiny_data):
    indices = np.arange(40)
    expected, _ = load("imagenet2012", data_dir=tiny_data).train.load(indices, SEED)
    photographs = load("imagenet2012", data_dir=tiny_data).train
    with ThreadPoolExecutor(8) as threads:
        batches = list(threads.map(lambda i: photographs.load(indices[i : i + 2], SEED)[0], range(0, 40, 2)))
    assert (np.concatenate(batches) == expected).all()


def test_each_epoch_and_seed_has_other_crops(photographs):
    first, epoch, seed = (photographs.load(np.arange(4), s)[0] for s in [(0, 0), (0, 1), (1, 0)])
    for other in (epoch, seed):
        assert (first != other).any(axis=(1, 2, 3)).all()


def test_no_images_can_be_loaded(photographs):
    images, labels = photographs.load(np.arange(0), SEED)
    assert images.shape == (0, 224, 224, 3)
    assert labels.shape == (0,)


def test_random_crops_have_the_areas_and_ratios_of_imagenet():
    boxes = np.array([random_box(500, 375, np.random.default_rng(i)) for i in range(2000)])
    left, top, right, bottom = boxes.T
    assert min(left.min(), top.min()) >= 0
    assert (right.max(), bottom.max()) == (500, 375)
    area = (right - left) * (bottom - top) / (500 * 375)
    ratio = (right - left) / (bottom - top)
    # Up to half a pixel of rounding.
    assert 0.078 < area.min() < 0.09
    assert 0.95 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76
    assert 1.31 < ratio.max() < 1.35
    # All parts of the photograph are seen.
    assert ((left < 20) & (top < 20)).any()
    assert ((right > 480) & (bottom > 355)).any()


@pytest.mark.parametrize(
    ("size", "box"), [((4000, 100), (1933, 0, 2066, 100)), ((100, 4000), (0, 1933, 100, 2066))]
)
def test_of_a_narrow_photograph_the_middle_is_taken(size, box):
    assert random_box(*size, np.random.default_rng(0)) == box


def photographs_of(image, file_format):
    """Returns photographs that are all the same."""
    content = io.BytesIO()
    image.save(content, file_format)
    example = {"image": content.getvalue(), "label": 0}
    return Photographs(mock.Mock(read=lambda indices: [example for _ in indices]))


def evaluated(image, file_format):
    """Returns the image as evaluation would load it from a file."""
    return photographs_of(image, file_format).load(np.array([0]), None)[0][0]


def test_each_photograph_has_its_own_crop():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    crops, _ = photographs_of(Image.fromarray(noise), "PNG").load(np.arange(4), SEED)
    assert len({crop.tobytes() for crop in crops}) == 4


def test_evaluation_sees_the_middle_of_the_photograph():
    # As wide as in ImageNet, and brighter to the right. Seven eighths of the shorter side are seen.
    columns = np.linspace(0, 255, 500).round().astype(np.uint8)
    ramp = np.broadcast_to(columns[:, None], (375, 500, 3))
    image = evaluated(Image.fromarray(ramp), "PNG")
    side = 375 * 7 / 8
    expected = ((500 - side) / 2 + side * (np.arange(224) + 0.5) / 224) / 500 * 255
    np.testing.assert_allclose(image[100, :, 1], expected, atol=1)


@pytest.mark.parametrize(
    ("mode", "expected"), [("RGB", (200, 100, 50)), ("CMYK", (200, 100, 50)), ("L", 124)]
)
def test_every_photograph_becomes_rgb(mode, expected):
    photograph = Image.new("RGB", (300, 300), (200, 100, 50)).convert(mode)
    assert np.abs(evaluated(photograph, "JPEG") - np.array(expected)).max() <= 2


# Preparation.


def test_two_processes_can_prepare_the_digits_at_once(tmp_path, monkeypatch):
    splits, others = digits.splits, []

    def meanwhile():
        if not others:
            others.append(None)
            prepare("digits", data_dir=tmp_path)
        return splits()

    monkeypatch.setattr(digits, "splits", meanwhile)
    folder = prepare("digits", data_dir=tmp_path)
    assert others
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]
    assert len(load("digits", data_dir=tmp_path).train) == 1200


def test_what_is_ready_needs_nothing_to_prepare_it(tiny_data, tmp_path):
    folder = prepare("imagenet2012", data_dir=tiny_data, source=tmp_path / "nowhere")
    assert folder == tiny_data / "imagenet2012" / "5.1.0"


def test_the_published_fashion_mnist_is_restored_from_debians(tmp_path):
    names = [f"{split}-{kind}-idx1-ubyte.gz" for split in ("train", "t10k") for kind in ("images", "labels")]
    expected = {}
    for name in names:
        modified = 1504176606 if name.startswith("train") else 1504176627
        stream = io.BytesIO()
        with gzip.GzipFile(name.removesuffix(".gz"), "wb", 9, stream, modified) as file:
            file.write(name.encode() * 100)
        expected[name] = stream.getvalue()
        (tmp_path / name).write_bytes(gzip.compress(name.encode() * 100, 9, mtime=1591347949))

    def read(name):
        return preparation.published(tmp_path / name, hashlib.sha256(expected[name]).hexdigest())

    assert [read(name) for name in names] == list(expected.values())
    # The published files themselves do as well, and no others.
    (tmp_path / names[0]).write_bytes(expected[names[0]])
    assert read(names[0]) == expected[names[0]]
    (tmp_path / names[1]).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=f"{names[1]} is damaged"):
        read(names[1])


@pytest.mark.parametrize("name", TINY)
def test_archives_other_than_the_published_are_refused(name, tmp_path):
    WRITERS[name](tmp_path)
    with pytest.raises(DataError) as error:
        prepare(name, data_dir=tmp_path / "data", source=tmp_path)
    first = min(path for path in tmp_path.iterdir() if path.is_file())
    assert one_line(error) == f"{first} is damaged: its SHA-256 is not that of the published file"


def test_a_damaged_archive_of_the_right_size_is_refused(tmp_path):
    write_cifar10(tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with registered("cifar10", tmp_path):
        content = bytearray(archive.read_bytes())
        content[len(content) // 2] ^= 1
        archive.write_bytes(content)
        with pytest.raises(DataError, match=f"{archive} is damaged"):
            prepare("cifar10", data_dir=tmp_path / "data", source=tmp_path)


def test_a_damaged_fashion_mnist_is_refused(tmp_path):
    for url in tfds.builder_cls("fashion_mnist").url_infos:
        (tmp_path / url.rpartition("/")[2]).write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz is damaged"):
        prepare("fashion_mnist", data_dir=tmp_path / "data", source=tmp_path)


# Failures that the user can mend.


@pytest.mark.parametrize("name", [name for name, data in DATASETS.items() if not data.origin.comes_with])
def test_a_dataset_that_is_missing_is_told_with_the_command_that_gets_it(name, tmp_path):
    with pytest.raises(DataError) as error:
        load(name, data_dir=tmp_path)
    more = {
        "imagenet2012": " --source DIR, where DIR has ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
        "c4": " --source DIR, where DIR is a folder of TensorFlow Datasets that has c4/en",
    }
    command = f"python -m benchmarks prepare {name} --data-dir {tmp_path}"
    message = f"{name} is not in {tmp_path}; get it with: {command}"
    assert one_line(error) == message + more.get(name, "")


def test_the_command_is_short_for_tfds_own_folder(tmp_path):
    # TFDS reads the variable once.
    code = "from benchmarks.data.registry import load; load('cifar10')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"TFDS_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    message = f"cifar10 is not in {tmp_path}; get it with: python -m benchmarks prepare cifar10"
    assert done.stderr.splitlines()[-1] == f"benchmarks.data.prepare.DataError: {message}"


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "FASHION_MNIST", tmp_path)
    with pytest.raises(DataError) as error:
        prepare("fashion_mnist", data_dir=tmp_path)
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    advice = "`apt install dataset-fashion-mnist` brings it, or --source DIR names a folder that has it"
    assert one_line(error) == f"{file} is missing: {advice}"


@pytest.mark.parametrize(
    ("name", "file"), [("cifar100", "cifar-100-binary.tar.gz"), ("imagenet2012", "ILSVRC2012_img_train.tar")]
)
def test_a_file_that_is_not_in_the_source_is_named(name, file, tmp_path):
    with pytest.raises(DataError) as error:
        prepare(name, data_dir=tmp_path, source=tmp_path)
    assert one_line(error).startswith(f"{tmp_path / file} is missing: --source DIR names a folder")


def test_the_digits_take_no_source(tmp_path):
    with pytest.raises(DataError) as error:
        prepare("digits", data_dir=tmp_path, source=tmp_path)
    assert one_line(error) == "digits comes with scikit-learn: it takes no --source"


def test_imagenet_is_not_downloaded(tmp_path):
    with pytest.raises(DataError) as error:
        prepare("imagenet2012", data_dir=tmp_path)
    assert "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" in one_line(error)


def test_a_download_that_fails_is_told(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, "download_and_prepare", refused)
    with pytest.raises(DataError) as error:
        prepare("cifar10", data_dir=tmp_path)
    assert one_line(error) == f"cannot prepare cifar10 in {tmp_path / 'cifar10' / '3.0.2'}: no network"


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError) as error:
        load("digits", data_dir=tmp_path / "file")
    assert one_line(error).startswith(f"cannot prepare digits in {tmp_path / 'file'}")


def test_tensorflow_is_asked_for_only_to_prepare(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        prepare("cifar10", data_dir=tmp_path)
    assert one_line(error) == "preparing cifar10 needs TensorFlow: pip install '.[prepare]'"
    assert len(load("digits", data_dir=tmp_path).train) == 1200


WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
import numpy as np
from benchmarks.data.registry import load
for name in ("digits", "cifar10", "cifar100", "imagenet2012", "c4"):
    for split in load(name, data_dir=Path(sys.argv[1]))[:2]:
        split.load(np.arange(9), (0, 0))
"""


def test_everything_is_read_without_tensorflow_and_in_silence(tiny_data):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW, tiny_data],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_file_format_is_told(damaged):
    (info,) = damaged.glob("*/dataset_info.json")
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="is in the format tfrecord, which needs TensorFlow") as error:
        load("cifar10", data_dir=damaged.parent)
    one_line(error)


@pytest.mark.parametrize("pattern", ["*/cifar10-train.*", "*/dataset_info.json"])
def test_a_damaged_folder_is_told(damaged, pattern):
    (file,) = damaged.glob(pattern)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError) as error:
        load("cifar10", data_dir=damaged.parent)
    assert one_line(error).endswith("remove it and prepare the dataset again")


def test_an_incomplete_folder_is_told(tmp_path):
    folder = tmp_path / "digits" / "1.0.0"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=f"{folder} is damaged or incomplete: remove it and prepare"):
        load("digits", data_dir=tmp_path)


@pytest.mark.parametrize("act", [load, prepare])
def test_an_unknown_name_is_told_with_those_that_exist(act, tmp_path):
    with pytest.raises(DataError, match="there is no dataset mnist, but digits, fashion_mnist, cifar10"):
        act("mnist", data_dir=tmp_path)
