"""The folder that a job writes to: results are on disk as soon as they exist."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import jax


class FolderError(Exception):
    """A folder that cannot take results; the message is for the user."""

    @classmethod
    def of(cls, folder: Path, error: OSError) -> Self:
        """Returns the error for a folder that cannot be written to."""
        return cls(f"cannot write to the folder {folder}: {error.strerror}; make room or name another folder")


class ResultsFolder:
    """A folder with `results.json`, which is rewritten whole after each run.

    A folder of the same job with the same settings is continued: what `has` finds there
    need not be run again.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Makes or opens the folder and writes to it, so that what is wrong with it shows early."""
        self.path = path
        self.results: dict[str, Any] = {
            "settings": settings,
            "environment": environment(),
            "runs": [],
            "unfinished": [],
        }
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file, not a folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if self.file.exists():
                self.results |= self._runs_to_continue()
        except OSError as error:
            raise FolderError.of(path, error) from error
        self.write()

    @property
    def file(self) -> Path:
        """The machine-readable results."""
        return self.path / "results.json"

    def has(self, **identity: Any) -> bool:
        """Says whether a run with these entries is there."""
        return any(identity.items() <= run.items() for run in self.results["runs"])

    def add_run(self, run: dict[str, Any]) -> None:
        """Adds a finished run."""
        self.results["runs"].append(run)
        self.write()

    def write(self) -> None:
        """Writes the results as they are now."""
        self.write_text(self.file.name, json.dumps(self.results, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Writes a file."""
        # Replaced, never rewritten in place: a crash leaves the old file or the new one.
        unfinished = self.path / f"{name}.unfinished"
        try:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, self.path / name)
        except OSError as error:
            raise FolderError.of(self.path, error) from error

    def _runs_to_continue(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            runs = {"runs": found["runs"], "unfinished": found.get("unfinished", [])}
            parts = ("settings", "environment")
            ours = json.loads(json.dumps({part: self.results[part] for part in parts}))
            other = difference(ours, {part: dict(found[part]) for part in parts})
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise FolderError(f"{self.file} is damaged; name another folder") from error
        if other:
            raise FolderError(f"{self.path} holds other results: {other}; name another folder")
        return runs


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Returns the first entry that differs between two trees of plain data, as "x is 1 there and 2 here"."""
    for key in {**ours, **theirs}:
        here, there = ours.get(key), theirs.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            if deeper := difference(here, there):
                return f"{key}.{deeper}"
        elif key not in theirs or key not in ours:
            return f"{key} is only {'here' if key in ours else 'there'}"
        elif here != there:
            return f"{key} is {there!r} there and {here!r} here"
    return None


def environment() -> dict[str, str]:
    """Returns what the figures depend on: versions, platform and processors."""
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {jax.default_backend()} backend",
    }
