"""Checkpoints of a run: complete or ignored, verified before use, and never those of another run.

A checkpoint is a folder named after its step, which Orbax writes under another name and
then renames. Beside it stands `STEP.sha256`, the checksums of its files as `sha256sum
--check` reads them. It is written last and removed first, so that a folder without one is
unfinished.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from benchmarks.training.records import FolderError, difference

KEPT = 2
SECONDS_BETWEEN = 60.0
OURS = re.compile(r"\d+(\.sha256|\.unfinished|\.orbax-checkpoint-tmp.*)?")


class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the newest two are kept.

    Where several processes train together they share the folder: all write their parts, the
    first does the rest.
    """

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

    def due(self, *, epoch_ends: bool = False) -> bool:
        """Says whether it is time to save."""
        if jax.process_count() > 1:
            return epoch_ends  # their clocks differ, but all must save together.
        return self.interrupted() or time.monotonic() - self._last >= self._seconds_between

    def stops(self) -> bool:
        """Says whether the run is to end here: where several processes train, if one of them is told to."""
        if jax.process_count() == 1:
            return self.interrupted()
        return bool(multihost_utils.process_allgather(np.array(self.interrupted())).any())

    def open(self, state: Any, progress: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Returns the last state and progress if there are any, and else writes those of the start.

        So a folder that cannot take checkpoints fails before the training. `state` also says
        what is expected: the same tree, shapes, dtypes and placement.
        """
        steps = _of_first(self.steps())
        if steps:
            state, progress = self._restore(steps, state)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self._unfinished() if _is_first() else []:
                self.say(f"Ignoring and removing the unfinished checkpoint {path}")
                _remove(path)
            self._check_room(state, KEPT + 1 - len(steps))
        except OSError as error:
            raise FolderError.of(self.folder, error) from error
        if not steps:
            try:
                self._write(0, state, progress)
            except Exception as error:  # Orbax passes on whatever the storage raises.
                self._clean()
                raise FolderError(
                    f"cannot write a checkpoint to {self.folder}: {_one_line(error)}"
                ) from error
        self._last = time.monotonic()
        return state, progress

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint if the step has none; if that fails, says so and lets the training go on."""
        try:
            if step not in _of_first(self.steps()):
                self._write(step, state, progress)
        except Exception as error:  # Orbax passes on whatever the storage raises.
            last = max(self.steps(), default="none")
            self.say(f"No checkpoint of step {step}: {_one_line(error)}. The last one is of step {last}.")
        self._clean()
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the checkpoints, and the folders that this leaves empty."""
        if not _is_first():
            return
        with contextlib.suppress(OSError):
            for path in self._ours():
                _remove(path)
            self.folder.rmdir()
            self.folder.parent.rmdir()

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, in order."""
        return sorted(int(path.stem) for path in self._ours() if path.suffix == ".sha256")

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _list(self, step: int) -> Path:
        return self.folder / f"{step}.sha256"

    def _ours(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if OURS.fullmatch(path.name))

    def _unfinished(self) -> list[Path]:
        finished = {path for step in self.steps() for path in (self._path(step), self._list(step))}
        return [path for path in self._ours() if path not in finished]

    def _check_room(self, state: Any, checkpoints: int) -> None:
        leaves = jax.tree.leaves(state)
        # Orbax adds less than a kilobyte for each array, and a few files.
        size = sum(leaf.nbytes + 1_000 for leaf in leaves) + 20_000
        free, needed = shutil.disk_usage(self.folder).free, checkpoints * size
        if free < needed:
            raise FolderError(f"{self.folder} has {free:,} bytes left; the checkpoints need {needed:,}")

    def _write(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            run=ocp.args.JsonSave({"settings": self.settings, "progress": progress}),
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(self._path(step), args=items, force=True)
        error = self._write_checksums(step) if _is_first() else None
        _wait_for_all("written")
        if error is not None:
            raise error

    def _write_checksums(self, step: int) -> OSError | None:
        """Returns an error instead of raising it, so that no process waits for another in vain."""
        unfinished = self._list(step).with_suffix(".unfinished")
        try:
            unfinished.write_text(_checksums(self._path(step)), encoding="utf-8")
            os.replace(unfinished, self._list(step))
        except OSError as error:
            return error
        return None

    def _clean(self) -> None:
        """Removes all but the newest checkpoints, if the storage lets it."""
        if not _is_first():
            return
        with contextlib.suppress(OSError):
            for step in self.steps()[:-KEPT]:
                self._list(step).unlink()
            for path in self._unfinished():
                _remove(path)

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
            try:
                restored = checkpointer.restore(self._path(last), args=items).state
            except ValueError as error:
                message = f"{self._path(last)} has another state than this run; name another folder"
                raise FolderError(message) from error
        return restored, run["progress"]

    def _verify(self, last: int, older: list[int]) -> None:
        damaged = _damaged(self._path(last), self._list(last))
        if damaged is None:
            return
        good = [step for step in older if _damaged(self._path(step), self._list(step)) is None]
        advice = f"no other checkpoint is whole; remove {self.folder} to start anew"
        if good:
            advice = (
                f"the last good checkpoint is of step {good[-1]}, this one is of step {last}; "
                f"remove {self._list(last)} to go back"
            )
        raise FolderError(f"{damaged} is damaged or missing: {advice}")


def _is_first() -> bool:
    return jax.process_index() == 0


def _of_first(steps: list[int]) -> list[int]:
    """Returns the newest steps as the first process sees them: a shared disk may show others less."""
    if jax.process_count() == 1:
        return steps
    newest = np.array([-1] * KEPT + steps)[-KEPT:]
    return [int(step) for step in multihost_utils.broadcast_one_to_all(newest) if step >= 0]


def _wait_for_all(moment: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


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
    if not re.fullmatch(r"([0-9a-f]{64}  .+\n)+", expected):
        return checksum_list
    written, found = ({line[66:]: line[:64] for line in text.splitlines()} for text in (expected, actual))
    differing = sorted(name for name in written.keys() & found.keys() if written[name] != found[name])
    missing = sorted(written.keys() - found.keys())
    # Otherwise the list itself has lost something.
    return next((folder.parent / name for name in differing + missing), checksum_list)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
