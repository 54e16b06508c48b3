"""Where text comes from: documents of each split, of which no part is in two."""

import io
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

Documents = dict[str, list[str]]  # of "train", "validation" and "test".

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
# Tests, what is not the library's own, tables of characters, texts to print, what building Python writes.
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data"}
BUILT = ("_sysconfigdata", "config-")
HELD_OUT = 0.05  # of the characters, for validation and for the test each.

AUSTEN_FILE = "Rdata.rdb"

C4_DOCUMENTS = {"train": 60_000, "validation": 2_000, "test": 2_000}


def standard_library(root: Path) -> Documents:
    """Returns the source files of Python's standard library in the order of their paths.

    The last twentieth of the characters is the test, the one before it validation. A file
    goes where its first character is.
    """
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    own = [path for path in paths if not any(map(_is_left_out, path.parts))]
    # A few files are not UTF-8.
    documents = [(root / path).read_text(encoding="utf-8", errors="replace") for path in own]
    split: Documents = {"train": [], "validation": [], "test": []}
    total, seen = sum(map(len, documents)), 0
    for document in documents:
        left = 1 - seen / total
        name = "test" if left <= HELD_OUT else "validation" if left <= 2 * HELD_OUT else "train"
        split[name].append(document)
        seen += len(document)
    return split


def _is_left_out(part: str) -> bool:
    return part in LEFT_OUT or part.startswith(BUILT)


def austen(folder: Path) -> Documents:
    """Returns six novels from an R package: the last is the test, the one before it validation."""
    import rdata  # it takes seconds to import, and nothing else needs it.

    novels = [rdata.read_rds(io.BytesIO(stream)) for stream in _streams((folder / AUSTEN_FILE).read_bytes())]
    *train, validation, test = map("\n".join, novels)
    return {"train": train, "validation": [validation], "test": [test]}


def _streams(content: bytes) -> Iterator[bytes]:
    """Yields what is in a database of R: for each object its size in four bytes, and a zlib stream."""
    while content:
        stream = zlib.decompressobj()
        yield stream.decompress(content[4:])
        content = stream.unused_data


def c4(folder: Path) -> Documents:
    """Returns the first documents of C4 as TFDS has prepared it; its validation split is our test."""
    builder = tfds.builder_from_directory(folder)
    train, validation = (builder.info.splits[name].num_examples for name in ("train", "validation"))
    last = min(C4_DOCUMENTS["train"] + C4_DOCUMENTS["validation"], train)
    # A small copy of C4, too, has something to validate on.
    first = min(C4_DOCUMENTS["train"], last * 9 // 10)
    return {
        "train": _texts(builder, f"train[:{first}]"),
        "validation": _texts(builder, f"train[{first}:{last}]"),
        "test": _texts(builder, f"validation[:{min(C4_DOCUMENTS['test'], validation)}]"),
    }


def _texts(builder: Any, split: str) -> list[str]:
    # What is stored as tfrecord is read with TensorFlow, and cannot be read in another way.
    if builder.info.file_format.value == "array_record":
        examples = builder.as_data_source(split)
    else:
        examples = tfds.as_numpy(builder.as_dataset(split=split))
    return [example["text"].decode() for example in examples]
