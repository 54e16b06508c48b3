"""The folder that a benchmark writes to: results are on disk as soon as they exist."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


class FolderError(Exception):
    """A folder that cannot take results; the message is for the user."""


class ResultsFolder:
    """A new folder with `results.json`, rewritten whole whenever there is more to tell."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Makes the folder and writes the settings, so that what is wrong with it shows early."""
        self.path = path
        self.results: dict[str, Any] = {"settings": settings, "environment": environment(), "runs": []}
        if self.file.exists():
            raise FolderError(f"the folder {path} holds results already; name another one")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise FolderError(f"cannot write to the folder {path}: {error.strerror}") from error

    @property
    def file(self) -> Path:
        """The machine-readable results."""
        return self.path / "results.json"

    def add_run(self, run: dict[str, Any]) -> None:
        """Adds a finished run."""
        self.results["runs"].append(run)
        self._write()

    def _write(self) -> None:
        # Replaced, never rewritten in place: a crash leaves the old file or the new one.
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.results, indent=1) + "\n")
        os.replace(unfinished, self.file)


def environment() -> dict[str, str]:
    """Returns what the figures depend on: versions, platform and processors."""
    packages = ("jax", "jaxlib", "optax", "flax", "numpy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {jax.default_backend()} backend",
    }
