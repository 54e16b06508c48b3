"""Fashion-MNIST from the Debian package that has it, bit for bit as its authors published it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")

# Of the files within the published archives, in seconds since 1970.
TRAIN_MODIFIED, TEST_MODIFIED = 1504176606, 1504176627
WITH_NAME = b"\x08"  # the flag of a gzip header that holds the name of the file.


def published(source: Path, checksums: Mapping[str, str]) -> dict[str, bytes | None]:
    """Returns the content of each file as published, or None where nothing gives its SHA-256."""
    return {name: _published(source / name, checksum) for name, checksum in checksums.items()}


def _published(file: Path, checksum: str) -> bytes | None:
    packaged = file.read_bytes()
    modified = TRAIN_MODIFIED if file.name.startswith("train") else TEST_MODIFIED
    candidates = (packaged, with_header(packaged, file.name.removesuffix(".gz"), modified))
    return next((content for content in candidates if hashlib.sha256(content).hexdigest() == checksum), None)


def with_header(packaged: bytes, name: str, modified: int) -> bytes:
    """Returns a gzip stream with a name and a time, which Debian's build strips, in its header."""
    magic, rest, stream = packaged[:3], packaged[8:10], packaged[10:]
    return magic + WITH_NAME + modified.to_bytes(4, "little") + rest + name.encode() + b"\0" + stream
