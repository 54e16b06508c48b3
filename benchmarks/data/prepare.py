"""Makes datasets ready with TensorFlow Datasets (TFDS), which then reads them without TensorFlow."""

import contextlib
import hashlib
import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow_datasets as tfds

Builder: TypeAlias = Any  # tfds.core.DatasetBuilder, which ships no types.
FILE_FORMAT = "array_record"  # the one that needs no TensorFlow to be read, in any order.


class DataError(Exception):
    """Data that is missing or unfit; the message is one line for the user."""


# Returns the folder of the published files, or None to download them: from the builder, the folder that
# the user names, if any, and an empty folder for files that have to be made first.
Source: TypeAlias = Callable[[Builder, Path | None, Path], Path | None]


def find(name: str, make: Callable[..., Builder], data_dir: Path | None) -> Builder:
    """Returns TFDS's builder, which knows what is prepared in a folder."""
    try:
        with quiet():
            builder = make(data_dir=data_dir)
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


def build(builder: Builder, source: Source | None, named: Path | None) -> None:
    """Makes a dataset ready from its source, or from the folder that the user named."""
    # TensorFlow reads these when it is imported, which TFDS does when it needs it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = source(builder, named, Path(scratch)) if source else Path(scratch)
            with quiet():
                builder.download_and_prepare(
                    # TFDS extracts by name, and in its own folder would take what an archive of the same
                    # name has left there.
                    download_dir=None if files is None else scratch,
                    download_config=tfds.download.DownloadConfig(manual_dir=files),
                    file_format=FILE_FORMAT,
                )
        except FAILURES as error:
            # Each process writes to a folder of its own and renames it: the first to finish wins.
            if not is_prepared(builder.__class__(data_dir=builder.data_dir_root)):
                message = f"cannot prepare {builder.name} in {builder.data_dir}: {_on_one_line(error)}"
                raise DataError(message) from error


FAILURES = (
    OSError,
    tfds.download.DownloadError,
    tfds.download.download_manager.NonMatchingChecksumError,
)


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


def archives(builder: Builder, named: Path | None, scratch: Path) -> Path | None:
    """Finds archives as they were published; without a folder they are downloaded."""
    return named and _verified(
        builder, named, "--source DIR names a folder that has it; without --source it is downloaded"
    )


def tar_files(builder: Builder, named: Path | None, scratch: Path) -> Path:
    """Finds the tar files of ImageNet, which cannot be downloaded."""
    files = " and ".join(map(_file_of, builder.url_infos))
    if named is None:
        raise DataError(f"{builder.name} cannot be downloaded: --source DIR names a folder with {files}")
    return _verified(builder, named, f"--source DIR names a folder with {files}, from image-net.org")


def debian_package(package: str, installed: str, file: str) -> Source:
    """Returns the source of a file that a package of Debian installs in a folder."""

    def find_files(builder: Builder, named: Path | None, scratch: Path) -> Path:
        folder = named or Path(installed)
        require(folder / file, advice_on(package))
        return folder

    return find_files


def prepared_by_tfds(builder: Builder, named: Path | None, scratch: Path) -> Path:
    """Finds the folder of C4 that TFDS has prepared, in its last version."""
    folder = (named or Path(builder.data_dir_root)) / "c4" / "en"
    versions = sorted(file.parent for file in folder.glob("*/dataset_info.json"))
    if not versions:
        raise DataError(
            f"{folder} has no prepared dataset: --source DIR names a folder of TensorFlow Datasets with c4/en"
        )
    return versions[-1]


FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
WITH_NAME = b"\x08"  # the flag of a gzip header that holds the name of the file.


def fashion_mnist(builder: Builder, named: Path | None, scratch: Path) -> Path:
    """Restores the published files of Fashion-MNIST from those of the Debian package."""
    folder = named or FASHION_MNIST
    for url, info in builder.url_infos.items():
        file = folder / _file_of(url)
        require(file, advice_on("dataset-fashion-mnist"))
        (scratch / file.name).write_bytes(published(file, info.checksum))
    return scratch


def published(file: Path, checksum: str) -> bytes:
    """Returns a gzip file of this SHA-256: the given one, or with the header that Debian's build strips."""
    content = file.read_bytes()
    modified = 1504176606 if file.name.startswith("train") else 1504176627
    magic, rest, stream = content[:3], content[8:10], content[10:]
    name = file.name.removesuffix(".gz").encode() + b"\0"
    restored = magic + WITH_NAME + modified.to_bytes(4, "little") + rest + name + stream
    for candidate in (content, restored):
        if hashlib.sha256(candidate).hexdigest() == checksum:
            return candidate
    raise _damaged(file)


def require_tensorflow(name: str) -> None:
    """Refuses to go on without TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(f"preparing {name} needs TensorFlow: pip install '.[prepare]'")


def require(file: Path, advice: str) -> None:
    """Refuses to go on without a file."""
    if not file.is_file():
        raise DataError(f"{file} is missing: {advice}")


def advice_on(package: str) -> str:
    """Returns how to get the files of a package of Debian."""
    return f"`apt install {package}` brings it, or --source DIR names a folder that has it"


def _verified(builder: Builder, folder: Path, advice: str) -> Path:
    for url, info in builder.url_infos.items():
        file = folder / _file_of(url)
        require(file, advice)
        # The size first: it is quick, and unfinished downloads are common.
        if file.stat().st_size != info.size or _sha256(file) != info.checksum:
            raise _damaged(file)
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(file: Path) -> DataError:
    return DataError(f"{file} is damaged: its SHA-256 is not that of the published file")


def _file_of(url: str) -> str:
    return url.rpartition("/")[2]


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
