"""Checkpoints of a run: complete or ignored, verified before use, and never those of another run.

A checkpoint is a folder named after its step, which Orbax writes under another name and
then renames. Beside it stands `STEP.sha256`, the checksums of its files as `sha256sum
--check` reads them. It is written last, so that a checkpoint without one is unfinished.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from benchmarks.recording import FolderError, difference

KEPT = 2
SECONDS_BETWEEN = 60.0


class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the newest two are kept."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        seconds_between: float = SECONDS_BETWEEN,
        interrupted: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
    ) -> None:
        """Takes plain data that decides the run, whether to stop, and how to tell the user a line."""
        self.folder = folder.absolute()  # Orbax takes no other.
        self.settings = settings
        self.interrupted = interrupted
        self.say = say
        self._seconds_between = seconds_between
        self._last = time.monotonic()

    def due(self) -> bool:
        """Says whether it is time to save."""
        return self.interrupted() or time.monotonic() - self._last >= self._seconds_between

    def open(self, state: Any, progress: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Returns the last state and progress if there are any, and else writes those of the start.

        So a folder that cannot take checkpoints fails before the training. `state` also says
        what is expected: the same tree, shapes, dtypes and placement.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_room(state)
            self._remove_unfinished()
        except OSError as error:
            raise FolderError(f"cannot write to the folder {self.folder}: {error.strerror}") from error
        steps = self.steps()
        if steps:
            return self._restore(steps, state)
        try:
            self._save(0, state, progress)
        except Exception as error:
            raise FolderError(f"cannot write a checkpoint to {self.folder}: {_one_line(error)}") from error
        return state, progress

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint; if that fails, says so and lets the training go on."""
        try:
            self._save(step, state, progress)
        except Exception as error:  # Orbax passes on whatever the storage raises.
            last = max(self.steps(), default="none")
            self.say(f"No checkpoint of step {step}: {_one_line(error)}. The last one is of step {last}.")

    def remove(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.folder)

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, in order."""
        written = [int(path.stem) for path in self.folder.glob("*.sha256") if path.stem.isdecimal()]
        return sorted(step for step in written if self._path(step).is_dir())

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _list(self, step: int) -> Path:
        return self.folder / f"{step}.sha256"

    def _check_room(self, state: Any) -> None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free, needed = shutil.disk_usage(self.folder).free, (KEPT + 1) * size
        if free < needed:
            raise FolderError(f"{self.folder} has {free:,} bytes left; the checkpoints need {needed:,}")

    def _remove_unfinished(self) -> None:
        finished = {path.name for step in self.steps() for path in (self._path(step), self._list(step))}
        for path in self.folder.iterdir():
            number = re.match(r"\d+", path.name)
            if number and path.name not in finished:
                self.say(f"Ignoring the unfinished checkpoint {path}")
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        if step not in self.steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                run=ocp.args.JsonSave({"settings": self.settings, "progress": progress}),
            )
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
                checkpointer.save(self._path(step), args=items)
            unfinished = self._list(step).with_suffix(".unfinished")
            unfinished.write_text(_checksums(self._path(step)), encoding="utf-8")
            os.replace(unfinished, self._list(step))
        for old in self.steps()[:-KEPT]:
            self._list(old).unlink()
            shutil.rmtree(self._path(old))
        self._last = time.monotonic()

    def _restore(self, steps: list[int], state: Any) -> tuple[Any, dict[str, Any]]:
        *older, last = steps
        self._verify(last, older)
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            items = ocp.args.Composite(run=ocp.args.JsonRestore())
            run = checkpointer.restore(self._path(last), args=items).run
            if other := difference(self.settings, run["settings"]):
                raise FolderError(f"{self.folder} is of another run: {other}; name another folder")
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            restored = checkpointer.restore(self._path(last), args=items).state
        return restored, run["progress"]

    def _verify(self, last: int, older: list[int]) -> None:
        damaged = _damaged(self._path(last), self._list(last))
        if damaged is None:
            return
        good = [step for step in older if _damaged(self._path(step), self._list(step)) is None]
        advice = f"no other checkpoint is whole; remove {self.folder} to start anew"
        if good:
            advice = f"the last good checkpoint is of step {good[-1]}; remove {self._list(last)} to use it"
        raise FolderError(f"{damaged} is damaged or missing: {advice}")


def _checksums(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder.parent)}\n" for path in files]
    return "".join(lines)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, checksum_list: Path) -> Path | None:
    """Returns a file that is not as it was written, if there is one."""
    expected = checksum_list.read_text(encoding="utf-8", errors="replace")
    if expected == (actual := _checksums(folder)):
        return None
    written, found = ({line[66:]: line[:64] for line in text.splitlines()} for text in (expected, actual))
    differing = sorted(name for name in written.keys() & found.keys() if written[name] != found[name])
    missing = sorted(written.keys() - found.keys())
    # Otherwise the list itself has lost something.
    return next((folder.parent / name for name in differing + missing), checksum_list)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
