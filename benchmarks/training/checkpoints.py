"""Checkpoints of a run: complete or ignored, verified before use, and never those of another run.

Orbax writes a checkpoint as a folder under another name, which it then renames to the step. It keeps
no checksum of most bytes of an array, so we add one of all files, `STEP/sha256`.
"""

import contextlib
import dataclasses
import hashlib
import shutil
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from benchmarks.training.records import FolderError, difference

OPTIONS = ocp.CheckpointManagerOptions(
    max_to_keep=2,
    enable_async_checkpointing=False,
    single_host_load_and_broadcast=True,  # a shared disk may show others less.
)
CHECKSUM = "sha256"


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the newest two are kept.

    Where several processes train together they share the folder: all write their parts.
    """

    folder: Path
    settings: dict[str, Any]  # plain data that decides the run.
    _: dataclasses.KW_ONLY
    seconds_between: float = 60.0
    interrupted: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print  # tells the user a line.
    _last: float = dataclasses.field(default_factory=time.monotonic, init=False)

    def due(self, *, epoch_ends: bool = False) -> bool:
        """Says whether it is time to save."""
        if jax.process_count() > 1:
            return epoch_ends  # their clocks differ, but all must save together.
        return self.interrupted() or time.monotonic() - self._last >= self.seconds_between

    def stops(self) -> bool:
        """Says whether the run is to end here: where several processes train, if one of them is told to."""
        if jax.process_count() == 1:
            return self.interrupted()
        return bool(multihost_utils.process_allgather(np.array(self.interrupted())).any())

    def open(self, state: Any, progress: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Returns the last state and progress; if there are none, those of the start, which it writes first.

        So a folder that cannot take checkpoints fails before the training. `state` also says
        what is expected: the same tree, shapes, dtypes and placement.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                manager = stack.enter_context(self._manager())
                self._write(manager, 0, state, progress)
            except Exception as error:  # Orbax passes on whatever the storage raises.
                raise FolderError(
                    f"cannot write a checkpoint to {self.folder}: {_one_line(error)}"
                ) from error
            self._last = time.monotonic()
            return self._restore(manager, state)

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint if the step has none; if that fails, says so and lets the training go on."""
        try:
            with self._manager() as manager:
                self._write(manager, step, state, progress)
        except Exception as error:  # Orbax passes on whatever the storage raises.
            self.say(f"No checkpoint of step {step}: {_one_line(error)}")
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the folder, and the one that it is in if that is empty then."""
        if jax.process_index() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.folder.parent.rmdir()

    def _manager(self) -> ocp.CheckpointManager:
        """Removes what was cut off or failed before, at once and not in a thread, and opens the rest."""
        folder = self.folder.absolute()  # Orbax takes no other path.
        if jax.process_index() == 0:
            for unfinished in folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(unfinished)
        return ocp.CheckpointManager(folder, options=OPTIONS)

    def _write(self, manager: ocp.CheckpointManager, step: int, state: Any, progress: dict[str, Any]) -> None:
        """Writes a checkpoint, unless there is one of this step or a later one."""
        run = ocp.args.JsonSave({"settings": self.settings, "progress": progress})
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=run)
        path = self.folder / str(step)
        if manager.save(step, args=items) and jax.process_index() == 0:
            (path / CHECKSUM).write_text(_checksum(path))

    def _restore(self, manager: ocp.CheckpointManager, state: Any) -> tuple[Any, dict[str, Any]]:
        target = ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, state))
        step = manager.latest_step()
        path = self.folder / str(step)
        try:
            # There is none, or an empty one, if the process was killed just then.
            if (path / CHECKSUM).exists() and (path / CHECKSUM).read_text() not in ("", _checksum(path)):
                raise ValueError("its files have changed")
            run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
            if not (other := difference(self.settings, run["settings"])):
                return manager.restore(step, args=ocp.args.Composite(state=target)).state, run["progress"]
        except Exception as error:  # Orbax raises all sorts if files are wrong.
            way_out = "remove it to continue from the one before it, or to start anew if there is none"
            raise FolderError(f"cannot restore {path}: {_one_line(error)}; {way_out}") from error
        raise FolderError(f"{self.folder} is of another run: {other}; name another folder")


def _checksum(path: Path) -> str:
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != CHECKSUM:
            with file.open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def _one_line(error: Exception) -> str:
    # What tensorstore appends in brackets is long.
    return textwrap.shorten(str(error).partition(" [")[0].rstrip("."), 500) or type(error).__name__
