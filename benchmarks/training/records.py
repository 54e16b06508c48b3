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
from typing import Any, Self

import jax
from filelock import FileLock, Timeout

import lpoptax
from benchmarks.config.settings import Settings

PACKAGES = ("python", "jax", "flax", "optax", "numpy")  # that a figure of a study depends on.


class FolderError(Exception):
    """A folder that cannot take results; the message is for the user."""

    @classmethod
    def of(cls, folder: Path, error: OSError) -> Self:
        """Returns the error for a folder that cannot be written to."""
        room = "make room or " if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        return cls(f"cannot write to the folder {folder}: {error.strerror}; {room}name another folder")


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
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError.of(path, error) from error

    def find(self, runs: Mapping[Settings, dict[str, int]]) -> dict[Settings, Run]:
        """Returns the records that there are of runs on so much data; refuses what cannot be continued."""
        found = {run.settings: run for run in read(self.path) if run.settings in runs}
        for settings, run in found.items():
            self._check(run, runs[settings])
        return found

    def begin(self, settings: Settings, examples: dict[str, int], known: Run | None = None) -> Run:
        """Returns the record of a run: what is in its file, which may be new, or else what is known."""
        file = self.path / f"{name(settings)}.jsonl"
        found = next(iter(read(file)), None) if file.exists() else known
        if found is None:
            return self._write(Run(settings, environment(), examples, []))
        self._check(found, examples)
        return found

    def _check(self, run: Run, examples: dict[str, int]) -> None:
        """Refuses a record of other data, and to continue one of other versions."""
        file = self.path / f"{name(run.settings)}.jsonl"
        if other := difference(examples, run.examples):
            raise FolderError(f"{file} is of other data: {other}; name another folder")
        other = None if run.finished else difference(environment(), run.environment)
        if other:
            raise FolderError(f"{file} is of another environment: {other}; name another folder")

    def add(self, run: Run, epoch: dict[str, Any]) -> Run:
        """Adds the measurements of an epoch to a record, unless they are there already."""
        if epoch["epoch"] <= run.done:
            return run
        return self._write(dataclasses.replace(run, epochs=[*run.epochs, epoch]))

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Gives whether this job has what goes by a name for its own; it may wait for another to end."""
        lock = FileLock(self.path / f"{name}.lock", blocking=wait)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise FolderError.of(self.path, error) from error
        try:
            yield True
        finally:
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
        try:
            unfinished.write_bytes(content)
            os.replace(unfinished, self.path / file)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise FolderError.of(self.path, error) from error

    def remove(self, *files: str) -> None:
        """Removes files, if they are there."""
        try:
            for file in files:
                (self.path / file).unlink(missing_ok=True)
        except OSError as error:
            raise FolderError.of(self.path, error) from error

    def _write(self, run: Run) -> Run:
        header = {"settings": run.settings.plain(), "environment": run.environment, "examples": run.examples}
        lines = [
            json.dumps(record, allow_nan=False) + "\n" for record in (header, *map(_without_nan, run.epochs))
        ]
        self.write_text(f"{name(run.settings)}.jsonl", "".join(lines))
        return run


def read(path: Path) -> list[Run]:
    """Returns the records in a file, or in all of a folder's; of several of one run that which is longest."""
    longest: dict[Settings, Run] = {}
    for run in _read(sorted(path.glob("*.jsonl")) if path.is_dir() else [path]):
        other = longest.setdefault(run.settings, run)
        if other.done < run.done:
            longest[run.settings] = run
    return list(longest.values())


def _read(files: list[Path]) -> list[Run]:
    runs: list[Run] = []
    for file in files:
        try:
            for line in file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                if "settings" in record:
                    examples = record["examples" if "examples" in record else "images"]  # of older records.
                    where = dict(record["environment"])
                    runs.append(Run(Settings.of(record["settings"]), where, dict(examples), []))
                else:
                    runs[-1].epochs.append(_with_nan(record))
        except (ValueError, LookupError, TypeError) as error:
            raise FolderError(f"{file} is damaged; remove it to run it again") from error
        except OSError as error:
            raise FolderError(f"cannot read {file}: {error.strerror}") from error
    return runs


def _without_nan(epoch: dict[str, Any]) -> dict[str, Any]:
    """Returns what JSON can hold: where training diverged, null."""
    return {
        key: None if value != value or value in (math.inf, -math.inf) else value
        for key, value in epoch.items()
    }


def _with_nan(epoch: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in epoch.items()}


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
    count = os.cpu_count()
    if not hasattr(os, "sched_getaffinity"):  # only Linux lets a process have some of them.
        return f"{count} CPUs"
    return f"{len(os.sched_getaffinity(0))} of {count} CPUs"
