"""Makes datasets ready with TensorFlow Datasets (TFDS), which then reads them without TensorFlow."""

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from benchmarks.data import corpora, fashion_mnist, text
from benchmarks.data.digits import Digits

Builder = Any  # tfds.core.DatasetBuilder, which ships no types.
FILE_FORMAT = "array_record"  # the one that needs no TensorFlow to be read, in any order.


class DataError(Exception):
    """Data that is missing or unfit; the message is one line for the user."""


def prepare(name: str, *, data_dir: Path | None = None, source: Path | None = None) -> Path:
    """Makes a dataset ready, if it is not yet; returns its folder.

    `data_dir` is where TFDS keeps datasets (its own default otherwise). `source` is a folder
    with the files as they are published, which ImageNet needs and the others can do without;
    for C4 it is a folder of TFDS.
    """
    builder = find(name, data_dir)
    if source is not None and name in _COME_WITH:
        raise DataError(f"{name} comes with {_COME_WITH[name]}: it takes no --source")
    if not is_prepared(builder):
        if name not in (*_COME_WITH, text.Austen.name):
            _require_tensorflow(name)
        with tempfile.TemporaryDirectory() as scratch, _one_line_errors(builder):
            config, downloads = _SOURCES[name](builder, source, Path(scratch))
            _build(builder, config, downloads)
        builder = find(name, data_dir)
        if not is_prepared(builder):  # TFDS leaves a folder alone that exists, whatever is in it.
            raise damaged_folder(builder.data_dir)
    return Path(builder.data_dir)


def find(name: str, data_dir: Path | None) -> Builder:
    """Returns TFDS's builder, which knows what is prepared."""
    if name not in _SOURCES:
        raise DataError(f"there is no dataset {name}, but {', '.join(_SOURCES)}")
    try:
        with quiet():
            builder = _OURS.get(name, partial(tfds.builder, name))(data_dir=data_dir)
    except Exception as error:  # TFDS lets through whatever its parsers of metadata raise.
        advice = "remove it and prepare the dataset again"
        raise DataError(f"cannot open {name}: {_on_one_line(error)}; {advice}") from error
    if is_prepared(builder) and (found := builder.info.file_format.value) != FILE_FORMAT:
        raise DataError(
            f"{builder.data_dir} is in the format {found}, which needs TensorFlow to be read; "
            "name another folder with --data-dir"
        )
    return builder


def is_prepared(builder: Builder) -> bool:
    """Says whether the dataset is ready to be read."""
    with quiet():
        return builder.is_prepared()


def damaged_folder(folder: str) -> DataError:
    """Returns the error for a prepared dataset that cannot be read."""
    return DataError(f"{folder} is damaged or incomplete: remove it and prepare the dataset again")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS from printing progress bars, announcements and logs."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    tfds.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


Download = tuple[tfds.download.DownloadConfig, Path | None]  # and the folder for it, if not TFDS's own.


def _build(builder: Builder, config: tfds.download.DownloadConfig, downloads: Path | None) -> None:
    # TensorFlow reads these when it is imported, which TFDS does when it needs it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        with quiet():
            builder.download_and_prepare(
                download_dir=downloads, download_config=config, file_format=FILE_FORMAT
            )
    except OSError:
        # Each process writes to a folder of its own and renames it: the first to finish wins.
        if not is_prepared(find(builder.name, builder.data_dir_root)):
            raise


def _from_memory(builder: Builder, source: Path | None, scratch: Path) -> Download:
    return tfds.download.DownloadConfig(), scratch


def _from_package(builder: Builder, source: Path | None, scratch: Path) -> Download:
    source = source or fashion_mnist.INSTALLED
    advice = f"`apt install {fashion_mnist.PACKAGE}` brings it, or --source DIR names a folder that has it"
    checksums = {_file_of(url): info.checksum for url, info in builder.url_infos.items()}
    for name in checksums:
        _require(source / name, advice)
    for name, content in fashion_mnist.published(source, checksums).items():
        if content is None:
            raise _damaged(source / name)
        (scratch / name).write_bytes(content)
    return tfds.download.DownloadConfig(manual_dir=scratch), scratch


def _from_debian_text(builder: Builder, source: Path | None, scratch: Path) -> Download:
    source = source or corpora.AUSTEN_INSTALLED
    advice = f"`apt install {corpora.AUSTEN_PACKAGE}` brings it, or --source DIR names a folder that has it"
    _require(source / corpora.AUSTEN_FILE, advice)
    return tfds.download.DownloadConfig(manual_dir=source), scratch


def _from_tfds(builder: Builder, source: Path | None, scratch: Path) -> Download:
    folder = (source or Path(builder.data_dir_root)) / "c4" / "en"
    versions = sorted(file.parent for file in folder.glob("*/dataset_info.json"))
    if not versions:
        raise DataError(
            f"{folder} has no prepared dataset: --source DIR names a folder of TensorFlow Datasets with c4/en"
        )
    return tfds.download.DownloadConfig(manual_dir=versions[-1]), scratch


def _from_archive(builder: Builder, source: Path | None, scratch: Path) -> Download:
    if source is None:
        return tfds.download.DownloadConfig(), None
    _verify_all(builder, source, "--source DIR names a folder that has it; without --source it is downloaded")
    # TFDS extracts by name, and would take what another archive of that name left in its own folder.
    return tfds.download.DownloadConfig(manual_dir=source), scratch


def _from_tar_files(builder: Builder, source: Path | None, scratch: Path) -> Download:
    files = " and ".join(map(_file_of, builder.url_infos))
    if source is None:
        raise DataError(f"{builder.name} cannot be downloaded: --source DIR names a folder with {files}")
    _verify_all(builder, source, f"--source DIR names a folder with {files}, from image-net.org")
    return tfds.download.DownloadConfig(manual_dir=source), scratch


_SOURCES: dict[str, Callable[[Builder, Path | None, Path], Download]] = {
    "digits": _from_memory,
    "fashion_mnist": _from_package,
    "cifar10": _from_archive,
    "cifar100": _from_archive,
    "imagenet2012": _from_tar_files,
    "stdlib": _from_memory,
    "austen": _from_debian_text,
    "c4": _from_tfds,
}
# Without the registry of TFDS, which has a C4 of its own.
_OURS = {builder.name: builder for builder in (Digits, text.Stdlib, text.Austen, text.C4)}
_COME_WITH = {"digits": "scikit-learn", "stdlib": "Python"}
NAMES = tuple(_SOURCES)


def _require_tensorflow(name: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(f"preparing {name} needs TensorFlow: pip install '.[prepare]'")


def _verify_all(builder: Builder, source: Path, advice: str) -> None:
    for url, info in builder.url_infos.items():
        file = source / _file_of(url)
        _require(file, advice)
        # The size first: it is quick, and unfinished downloads are common.
        if file.stat().st_size != info.size or _sha256(file) != info.checksum:
            raise _damaged(file)


def _require(file: Path, advice: str) -> None:
    if not file.is_file():
        raise DataError(f"{file} is missing: {advice}")


def _damaged(file: Path) -> DataError:
    return DataError(f"{file} is damaged: its SHA-256 is not that of the published file")


def _file_of(url: str) -> str:
    return url.rpartition("/")[2]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_FAILURES = (
    OSError,
    tfds.download.DownloadError,
    tfds.download.download_manager.NonMatchingChecksumError,
)


@contextlib.contextmanager
def _one_line_errors(builder: Builder) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        message = f"cannot prepare {builder.name} in {builder.data_dir}: {_on_one_line(error)}"
        raise DataError(message) from error


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
