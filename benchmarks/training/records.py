"""The folder that a job writes to: what is measured is on disk as soon as it exists.

Each run has a file of JSON lines: first its settings and the environment, then a line for
each epoch. Files may be joined into one with `cat`.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import platform
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from filelock import FileLock, Timeout

import lpoptax
from benchmarks.config.settings import Settings

PACKAGES = ("python", "jax", "flax", "optax", "numpy")  # that a figure of a study depends on.


class FolderError(Exception):
    """A folder that cannot take results; the message is for the user."""


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Lets a folder be blamed where it cannot be written to."""
    try:
        yield
    except OSError as error:
        room = "make room or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        text = f"cannot write to the folder {folder}: {error.strerror}; {room}name another folder"
        raise FolderError(text) from error


@dataclasses.dataclass(frozen=True)
class Run:
    """The record of a run, finished or not."""

    settings: Settings
    environment: dict[str, str]
    examples: dict[str, int]  # how many there were to train on, and how many held out.
    epochs: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Says whether the last epoch is there; those before may be left out."""
        return self.done == self.settings.epochs

    @property
    def done(self) -> int:
        """Returns the number of the last epoch that is there: 0 is before the first, -1 if there is none."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else -1


class ResultsFolder:
    """A folder with the records of runs. Several jobs may fill it at the same time."""

    def __init__(self, path: Path) -> None:
        """Makes or opens the folder."""
        self.path = path
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file, not a folder")
        with _writing_to(path):
            path.mkdir(parents=True, exist_ok=True)

    def find(self, runs: Mapping[Settings, dict[str, int]]) -> dict[Settings, Run]:
        """Returns the records that there are of runs on so much data; refuses what cannot be continued."""
        found = {run.settings: run for run in read(self.path) if run.settings in runs}
        return {settings: self._checked(run, runs[settings]) for settings, run in found.items()}

    def begin(self, settings: Settings, examples: dict[str, int], known: Run | None = None) -> Run:
        """Returns the record of a run: what is in its file, which may be new, or else what is known."""
        file = self._file(settings)
        found = next(iter(read(file)), None) if file.exists() else known
        new = Run(settings, environment(), examples, [])
        return self._checked(found, examples) if found else self._write(new)

    def _file(self, settings: Settings) -> Path:
        return self.path / f"{name(settings)}.jsonl"

    def _checked(self, run: Run, examples: dict[str, int]) -> Run:
        """Refuses a record of other data, and to continue one of other versions."""
        others = {
            "other data": difference(examples, run.examples),
            "another environment": None if run.finished else difference(environment(), run.environment),
        }
        for what, other in others.items():
            if other is not None:
                raise FolderError(f"{self._file(run.settings)} is of {what}: {other}; name another folder")
        return run

    def add(self, run: Run, epoch: dict[str, Any]) -> Run:
        """Adds the measurements of an epoch to a record, unless they are there already."""
        if epoch["epoch"] <= run.done:
            return run
        return self._write(dataclasses.replace(run, epochs=[*run.epochs, epoch]))

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Gives whether this job has what goes by a name for its own; it may wait for another to end."""
        lock = FileLock(self.path / f"{name}.lock", blocking=wait)
        with _writing_to(self.path), contextlib.suppress(Timeout):
            lock.acquire()
        try:
            yield lock.is_locked
        finally:
            if lock.is_locked:
                # While it is held: who waits for it sees then that it is gone, and makes another.
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()
                lock.release()

    def write_text(self, file: str, text: str) -> None:
        """Writes a file of text."""
        self.write_bytes(file, text.encode())

    def write_bytes(self, file: str, content: bytes) -> None:
        """Writes a file."""
        # Replaced, never rewritten in place: who reads it, also after a crash, sees the old one or
        # the new one. Under a name that other jobs do not use.
        unfinished = self.path / f"{file}.{uuid.uuid4().hex}.unfinished"
        with _writing_to(self.path):
            try:
                unfinished.write_bytes(content)
                unfinished.replace(self.path / file)
            finally:
                unfinished.unlink(missing_ok=True)

    def remove(self, *files: str) -> None:
        """Removes files, if they are there."""
        with _writing_to(self.path):
            for file in files:
                (self.path / file).unlink(missing_ok=True)

    def _write(self, run: Run) -> Run:
        header = {"settings": run.settings.plain(), "environment": run.environment, "examples": run.examples}
        self.write_text(self._file(run.settings).name, "".join(map(_line, (header, *run.epochs))))
        return run


def read(path: Path) -> list[Run]:
    """Returns the records in a file, or in all of a folder's; of several of one run that which is longest."""
    longest: dict[Settings, Run] = {}
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path]:
        for run in _read(file):
            longest[run.settings] = max(longest.get(run.settings, run), run, key=lambda run: run.done)
    return list(longest.values())


def _read(file: Path) -> list[Run]:
    runs: list[Run] = []
    try:
        for record in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "settings" in record:
                examples = record["examples" if "examples" in record else "images"]  # of older records.
                settings = Settings.of(record["settings"])
                runs.append(Run(settings, dict(record["environment"]), dict(examples), []))
            else:
                epoch = {key: math.nan if value is None else value for key, value in record.items()}
                runs[-1].epochs.append(epoch)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FolderError(f"{file} is damaged; remove it to run it again") from error
    except OSError as error:
        raise FolderError(f"cannot read {file}: {error.strerror}") from error
    return runs


def _line(record: Mapping[str, Any]) -> str:
    """Returns a line of JSON, which holds no numbers that are not finite: where training diverged, null."""
    plain = json.loads(json.dumps(record), parse_constant=lambda constant: None)
    return json.dumps(plain, allow_nan=False) + "\n"


def name(settings: Settings) -> str:
    """Returns a name that no other run has, and that begins with what one looks for."""
    digest = hashlib.sha256(json.dumps(settings.plain(), sort_keys=True).encode()).hexdigest()[:8]
    p = "" if settings.p is None else f"-p{settings.p:g}"
    return f"{settings.optimizer}{p}-lr{settings.learning_rate:g}-seed{settings.seed}-{digest}"


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Returns the first entry that differs between two dictionaries, as "x is 1 there and 2 here"."""
    for key in {**ours, **theirs}:
        if key not in theirs or key not in ours:
            return f"{key} is only {'here' if key in ours else 'there'}"
        if ours[key] != theirs[key]:
            return f"{key} is {theirs[key]!r} there and {ours[key]!r} here"
    return None


def environment() -> dict[str, str]:
    """Returns what the figures depend on: versions, platform and processors."""
    packages = ("jax", "jaxlib", "optax", "flax", "numpy")
    return {
        "python": platform.python_version(),
        "lpoptax": lpoptax.__version__,
        **{package: version(package) for package in packages},
        "machine": f"{platform.machine()}, {_cpus()}",
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def measured_with(environments: Iterable[Mapping[str, str]], packages: Iterable[str]) -> str:
    """Returns the sentence that names the versions of packages, and the machines."""
    texts = dict.fromkeys(
        ", ".join(f"{package} {measured[package]}" for package in packages)
        + f" on {measured['machine']}, devices: {measured['devices']}"
        for measured in environments
    )
    return f"Measured with {'; and with '.join(texts)}."


def _cpus() -> str:
    # Only Linux lets a process have some of them.
    some = f"{len(os.sched_getaffinity(0))} of " if hasattr(os, "sched_getaffinity") else ""
    return f"{some}{os.cpu_count()} CPUs"
