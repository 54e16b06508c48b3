"""Checkpoints: nothing is lost to a crash, and nothing wrong is continued."""

import contextlib
import dataclasses
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.interruption import interruption
from benchmarks.training.records import FolderError
from tests.checkpointed_run import EPOCHS, LPSGDM, STEPS_PER_EPOCH, digest, finish, start

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "tests.checkpointed_run"]
LAST_STEP = EPOCHS * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def undisturbed():
    """The epochs and the final state of a run without checkpoints."""
    return finish(start(None))


def launch(folder):
    return subprocess.Popen(
        [*COMMAND, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps(folder):
    """Returns the steps that have a finished checkpoint."""
    return {int(path.name) for path in folder.glob("*") if path.name.isdecimal()}


def newest(folder):
    return max(steps(folder), default=-1)


def unfinished(folder):
    """Returns the folders that Orbax writes to and has not renamed yet."""
    return list(folder.glob("*.orbax-checkpoint-tmp*"))


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def stopped_in_a_write(folder, process):
    """Stops the process when it is in a write of Orbax; says whether that was hit."""
    wait_until(lambda: unfinished(folder), process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    return bool(unfinished(folder))


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, undisturbed):
    folder = tmp_path / "run"
    moments, ignored = random.Random(0), 0
    for kill in range(5):
        before = newest(folder)
        process = launch(folder)
        wait_until(lambda before=before: newest(folder) > before, process)
        if kill % 2:
            time.sleep(moments.uniform(0, 0.2))
        else:
            while not stopped_in_a_write(folder, process):
                process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()
        ignored += bool(unfinished(folder))
        assert newest(folder) < LAST_STEP, "killed too late to show anything"
    output = launch(folder).communicate()[0]
    epochs, state = undisturbed
    last_line = output.splitlines()[-1]
    assert last_line == f"finished {digest(state)} {[epoch.train_nll for epoch in epochs]}"
    assert ignored >= 3
    assert not unfinished(folder)


def checkpoints(folder, settings=LPSGDM, **options):
    options = {"seconds_between": 0, "say": lambda line: None, **options}
    return Checkpoints(folder, settings.plain(), **options)


def first_epochs(folder, count):
    """Leaves the checkpoints of a run that stopped after some epochs."""
    run = start(checkpoints(folder))
    for _ in range(count):
        next(run)
    run.close()


def test_a_finished_run_is_not_run_again(tmp_path, undisturbed):
    first_epochs(tmp_path, EPOCHS)
    files = sorted(tmp_path.rglob("*"))
    written = [path.stat().st_mtime_ns for path in files]
    epochs, state = finish(start(checkpoints(tmp_path)))
    assert (epochs, digest(state)) == (undisturbed[0], digest(undisturbed[1]))
    assert [path.stat().st_mtime_ns for path in files] == written


STATE = {"x": jnp.arange(1000.0)}


def saved(folder, **options):
    """Returns checkpoints that have written three steps of a state that grows by one."""
    ours = checkpoints(folder, **options)
    ours.open(STATE, {"step": 0})
    for step in (1, 2):
        ours.save(step, {"x": STATE["x"] + step}, {"step": step})
    return ours


def assert_restored(folder, step):
    state, progress = checkpoints(folder).open(STATE, {})
    assert progress == {"step": step}
    assert digest(state) == digest({"x": STATE["x"] + step})


def test_the_two_newest_are_kept(tmp_path):
    saved(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
    assert_restored(tmp_path, 2)


def test_a_step_is_written_once(tmp_path):
    ours = saved(tmp_path)
    ours.save(2, STATE, {"step": "another"})
    assert_restored(tmp_path, 2)


def test_what_is_unfinished_is_ignored_and_removed(tmp_path):
    saved(tmp_path)
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    (tmp_path / "notes").touch()  # not ours
    assert_restored(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "notes"}


@pytest.mark.parametrize("written", [None, ""])
def test_a_checkpoint_is_used_whose_checksum_was_not_written_any_more(tmp_path, written):
    saved(tmp_path)
    (tmp_path / "2" / "sha256").unlink()
    if written is not None:
        (tmp_path / "2" / "sha256").write_text(written)
    assert_restored(tmp_path, 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def lose_arrays(folder):
    (folder / "sha256").unlink()
    shutil.rmtree(folder / "state" / "d")


DAMAGE = {
    "changed array": lambda folder: flip(largest_file(folder)),
    "changed progress": lambda folder: flip(folder / "run" / "metadata"),
    "changed list of arrays": lambda folder: flip(folder / "state" / "manifest.ocdbt"),
    "lost state": lambda folder: shutil.rmtree(folder / "state"),
    "changed checksum": lambda folder: flip(folder / "sha256"),
    "garbage as checksum": lambda folder: (folder / "sha256").write_bytes(b"\xff\x00"),
    "lost arrays and checksum": lose_arrays,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_with_the_way_out(tmp_path, damage, capfd):
    saved(tmp_path)
    DAMAGE[damage](tmp_path / "2")
    with pytest.raises(FolderError) as refused:
        checkpoints(tmp_path).open(STATE, {})
    message = str(refused.value)
    assert message.startswith(f"cannot restore {tmp_path / '2'}: ")
    assert message.endswith(
        "; remove it to continue from the one before it, or to start anew if there is none"
    )
    assert "\n" not in message
    assert "Traceback" not in capfd.readouterr().err
    shutil.rmtree(tmp_path / "2")
    assert_restored(tmp_path, 1)


def test_a_flipped_bit_of_an_array_is_news_to_orbax(tmp_path):
    # If this fails, Orbax checks the arrays itself, and our checksum may go.
    saved(tmp_path)
    flip(largest_file(tmp_path / "2"))
    (tmp_path / "2" / "sha256").unlink()
    state, _ = checkpoints(tmp_path).open(STATE, {})
    assert digest(state) != digest({"x": STATE["x"] + 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet8"}, "model is 'perceptron' there and 'resnet8' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"b1": 0.5}, "b1 is only here"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_checkpoints_of_another_run_are_refused(tmp_path, changes, message):
    saved(tmp_path)
    other = checkpoints(tmp_path, dataclasses.replace(LPSGDM, **changes))
    with pytest.raises(FolderError) as refused:
        other.open({"y": jnp.ones(1)}, {})
    assert str(refused.value) == f"{tmp_path} is of another run: {message}; name another folder"
    assert_restored(tmp_path, 2)


def test_a_state_of_another_structure_is_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(FolderError, match=r"cannot restore .*2: .*structures do not match") as refused:
        checkpoints(tmp_path).open({"y": jnp.ones(1)}, {})
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_disk_that_lets_no_file_grow_fails_before_training(tmp_path):
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "limited", *COMMAND, str(tmp_path)]
    run = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"FolderError: cannot write a checkpoint to {tmp_path}: " in run.stderr


def test_a_folder_that_cannot_be_made_fails_before_training(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(FolderError, match=f"cannot write a checkpoint to {folder}: "):
            next(start(checkpoints(folder)))


def test_a_disk_that_fails_later_does_not_stop_the_training(tmp_path, undisturbed):
    said = []
    run = start(checkpoints(tmp_path / "run", say=said.append))
    next(run)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").touch()
    _, state = finish(run)
    assert digest(state) == digest(undisturbed[1])
    # After each step and each epoch, and at the end.
    assert len(said) == LAST_STEP - STEPS_PER_EPOCH + EPOCHS + 1
    for line in said:
        assert line.startswith("No checkpoint of step ")
        assert "\n" not in line


def test_a_disk_that_works_again_is_written_to_again(tmp_path):
    said = []
    ours = saved(tmp_path, say=said.append)
    with limited_files(1000):
        ours.save(3, {"x": STATE["x"] + 3}, {"step": 3})
    (line,) = said
    assert line.startswith("No checkpoint of step 3: ")
    assert line.endswith("File too large")
    assert_restored(tmp_path, 2)
    ours.save(4, {"x": STATE["x"] + 4}, {"step": 4})
    assert {path.name for path in tmp_path.iterdir()} == {"2", "4"}
    assert_restored(tmp_path, 4)


@contextlib.contextmanager
def limited_files(size):
    """Lets no file grow beyond a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failing_disk_is_tried_again_only_when_due(tmp_path):
    said = []
    failing = checkpoints(tmp_path / "run", say=said.append, seconds_between=1e9)
    (tmp_path / "run").touch()
    failing._last -= 1e9
    assert failing.due()
    failing.save(1, STATE, {})
    assert said
    assert not failing.due()


def test_the_folder_is_removed_with_the_one_around_it_if_that_is_empty(tmp_path):
    ours, other = (saved(tmp_path / "checkpoints" / name) for name in ("run", "other"))
    ours.remove()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["other"]
    other.remove()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_the_step_it_was_at(tmp_path, number, undisturbed):
    with interruption(Console(quiet=True)) as interrupted:
        run = start(checkpoints(tmp_path, seconds_between=1e9, interrupted=interrupted))
        next(run)
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert newest(tmp_path) == STEPS_PER_EPOCH
    assert digest(finish(start(checkpoints(tmp_path)))[1]) == digest(undisturbed[1])


def test_a_second_interruption_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with interruption(Console(quiet=True)) as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_checkpoints_are_due_after_their_time(tmp_path):
    assert checkpoints(tmp_path, seconds_between=0).due()
    assert not checkpoints(tmp_path, seconds_between=1e9).due()
    assert checkpoints(tmp_path, seconds_between=1e9, interrupted=lambda: True).due()


def test_a_state_is_restored_to_its_devices(tmp_path):
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.NamedSharding(mesh, jax.P("devices"))
    state = {"x": jax.device_put(jnp.arange(16, dtype=jnp.bfloat16), sharded), "key": jax.random.key(1)}
    checkpoints(tmp_path).open(state, {})
    restored, _ = checkpoints(tmp_path).open(jax.tree.map(jnp.copy, state), {})
    assert restored["x"].sharding.is_equivalent_to(sharded, 1)
    assert digest(restored) == digest(state)
