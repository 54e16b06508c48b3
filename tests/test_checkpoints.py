"""Checkpoints: nothing is lost to a crash, and nothing wrong is continued."""

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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
MESSAGE = "Ignoring and removing the unfinished checkpoint"


@pytest.fixture(scope="module")
def undisturbed():
    """The epochs and the final state of a run without checkpoints."""
    return finish(start(None))


def launch(folder):
    return subprocess.Popen(
        [*COMMAND, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def newest(folder):
    return max((int(path.stem) for path in folder.glob("*.sha256")), default=-1)


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def stopped_in_a_write(folder, process):
    """Stops the process when it is in a write of Orbax; says whether that was hit."""
    # Orbax writes under this name, and then renames.
    wait_until(lambda: any(folder.glob("*tmp*")), process)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.05)
    return any(folder.glob("*tmp*"))


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
        ignored += MESSAGE in process.communicate()[0]
        assert newest(folder) < LAST_STEP, "killed too late to show anything"
    output = launch(folder).communicate()[0]
    ignored += MESSAGE in output
    epochs, state = undisturbed
    last_line = output.splitlines()[-1]
    assert last_line == f"finished {digest(state)} {[epoch.train_nll for epoch in epochs]}"
    assert ignored >= 3


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


def test_the_two_newest_are_kept_and_sha256sum_reads_their_checksums(tmp_path):
    first_epochs(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"5", "5.sha256", "6", "6.sha256"}
    for step in (5, 6):
        subprocess.run(["sha256sum", "--check", "--strict", f"{step}.sha256"], cwd=tmp_path, check=True)


def test_an_unfinished_checkpoint_is_ignored_and_said(tmp_path, undisturbed):
    first_epochs(tmp_path, 2)
    (tmp_path / "6.sha256").unlink()  # killed before the checksums,
    shutil.copytree(tmp_path / "5", tmp_path / "7.orbax-checkpoint-tmp")  # within Orbax,
    (tmp_path / "5.unfinished").touch()  # or within the checksums.
    (tmp_path / "notes").touch()  # not ours
    said = []
    _, state = finish(start(checkpoints(tmp_path, say=said.append)))
    assert sorted(said) == [
        f"{MESSAGE} {tmp_path / name}" for name in ("5.unfinished", "6", "7.orbax-checkpoint-tmp")
    ]
    assert digest(state) == digest(undisturbed[1])
    assert (tmp_path / "notes").exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def cut_list(folder):
    (folder / "6.sha256").write_text("".join((folder / "6.sha256").read_text().splitlines(True)[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: flip(largest_file(folder / "6")), largest_file),
        (lambda folder: (folder / "6" / "run" / "metadata").unlink(), lambda _: "6/run/metadata"),
        (lambda folder: shutil.rmtree(folder / "6" / "state" / "d"), lambda _: "6/state/d/"),
        (lambda folder: shutil.rmtree(folder / "6"), lambda _: "6"),
        (lambda folder: flip(folder / "6.sha256"), lambda _: "6"),
        (cut_list, lambda _: "6.sha256"),
        (lambda folder: (folder / "6.sha256").write_bytes(b"\xff\x00"), lambda _: "6.sha256"),
    ],
    ids=[
        "changed array",
        "lost progress",
        "lost folder",
        "lost checkpoint",
        "changed list",
        "cut list",
        "garbage list",
    ],
)
def test_damage_is_named_with_the_way_out(tmp_path, damage, named, undisturbed):
    first_epochs(tmp_path, 2)
    expected = named(tmp_path / "6") if named is largest_file else named(tmp_path)
    damage(tmp_path)
    with pytest.raises(FolderError) as refused:
        finish(start(checkpoints(tmp_path)))
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / expected}")
    advice = "the last good checkpoint is of step 5, this one is of step 6"
    assert message.endswith(f" is damaged or missing: {advice}; remove {tmp_path / '6.sha256'} to go back")
    (tmp_path / "6.sha256").unlink()
    assert digest(finish(start(checkpoints(tmp_path)))[1]) == digest(undisturbed[1])


def test_damage_to_all_checkpoints_says_so(tmp_path):
    first_epochs(tmp_path, 2)
    for step in "56":
        flip(largest_file(tmp_path / step))
    with pytest.raises(FolderError, match=f"no other checkpoint is whole; remove {tmp_path} to start anew"):
        finish(start(checkpoints(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet8"}, "model is 'perceptron' there and 'resnet8' here"),
        ({"optimizer": "sgdm", "p": None}, "optimizer is 'lpsgdm' there and 'sgdm' here"),
        ({"p": 8.0}, "p is 6.0 there and 8.0 here"),
        ({"learning_rate": 1.0}, "learning_rate is 0.01 there and 1.0 here"),
        ({"epochs": 6}, "epochs is 5 there and 6 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"b1": 0.5}, "b1 is only here"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_checkpoints_of_another_run_are_refused(tmp_path, changes, message):
    first_epochs(tmp_path, 1)
    (tmp_path / "4").mkdir()  # nor are they tidied up
    other = dataclasses.replace(LPSGDM, **changes)
    with pytest.raises(FolderError) as refused:
        finish(start(checkpoints(tmp_path, other), other))
    assert str(refused.value) == f"{tmp_path} is of another run: {message}; name another folder"
    assert (tmp_path / "4").exists()


def test_a_state_of_another_structure_is_refused(tmp_path):
    first_epochs(tmp_path, 1)
    other = dataclasses.replace(LPSGDM, optimizer="adamw", p=None)
    with pytest.raises(FolderError, match="3 has another state than this run; name another folder"):
        finish(start(checkpoints(tmp_path), other))


def assert_fails_before_training(folder, message):
    trained = start(checkpoints(folder))
    with pytest.raises(FolderError, match=message):
        next(trained)


def test_a_full_disk_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    assert_fails_before_training(tmp_path, "has 1 bytes left; the checkpoints need")


@pytest.mark.slow
def test_a_disk_that_lets_no_file_grow_fails_before_training(tmp_path):
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "limited", *COMMAND, str(tmp_path)]
    run = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"FolderError: cannot write a checkpoint to {tmp_path}: " in run.stderr


def test_a_folder_that_cannot_be_made_fails_before_training(tmp_path):
    (tmp_path / "file").touch()
    assert_fails_before_training(tmp_path / "file" / "run", "cannot write to the folder .*: Not a directory")
    assert_fails_before_training(tmp_path / "file", "cannot write to the folder .*: File exists")


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
        assert line.endswith(". The last one is of step none.")
        assert "\n" not in line


def test_a_failing_disk_is_tried_again_only_when_due(tmp_path):
    said = []
    failing = checkpoints(tmp_path / "run", say=said.append, seconds_between=1e9)
    (tmp_path / "run").touch()
    failing._last -= 1e9
    assert failing.due()
    failing.save(1, {"x": jnp.ones(1)}, {})
    assert said
    assert not failing.due()


def test_a_run_whose_disk_was_full_has_room_for_what_it_lacks(tmp_path, monkeypatch):
    first_epochs(tmp_path, 2)
    shutil.copytree(tmp_path / "6", tmp_path / "7.orbax-checkpoint-tmp")

    def free(folder):
        # Room for two checkpoints if the unfinished one is gone, where a new run needs three.
        return SimpleNamespace(free=0 if (tmp_path / "7.orbax-checkpoint-tmp").exists() else 150_000)

    monkeypatch.setattr(shutil, "disk_usage", free)
    finish(start(checkpoints(tmp_path)))


def test_only_what_is_ours_is_removed(tmp_path):
    first_epochs(tmp_path / "checkpoints" / "run", 1)
    for name in ("2024-results", "notes", "1.txt"):
        (tmp_path / "checkpoints" / "run" / name).mkdir()
    checkpoints(tmp_path / "checkpoints" / "run").remove()
    names = {path.name for path in (tmp_path / "checkpoints" / "run").iterdir()}
    assert names == {"2024-results", "notes", "1.txt"}
    for name in names:
        (tmp_path / "checkpoints" / "run" / name).rmdir()
    checkpoints(tmp_path / "checkpoints" / "run").remove()
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
