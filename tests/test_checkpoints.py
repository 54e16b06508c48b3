"""Checkpoints: nothing is lost to a crash, and nothing wrong is continued."""

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

from benchmarks.checkpoints import Checkpoints
from benchmarks.interruption import interruption
from benchmarks.recording import FolderError
from tests.checkpointed_run import EPOCHS, SETTINGS, STEPS_PER_EPOCH, digest, finish, start

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


def newest(folder):
    return max((int(path.stem) for path in folder.glob("*.sha256")), default=-1)


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)


def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path, undisturbed):
    folder = tmp_path / "run"
    moments, ignored = random.Random(0), 0
    for kill in range(5):
        before = newest(folder)
        process = launch(folder)
        wait_until(lambda before=before: newest(folder) > before, process)
        if kill % 2:
            time.sleep(moments.uniform(0, 0.3))
        else:
            # Orbax writes under this name.
            wait_until(lambda: any(folder.glob("*tmp*")), process)
        process.kill()
        ignored += "Ignoring the unfinished checkpoint" in process.communicate()[0]
        assert newest(folder) < LAST_STEP, "killed too late to show anything"
    output = launch(folder).communicate()[0]
    ignored += "Ignoring the unfinished checkpoint" in output
    epochs, state = undisturbed
    last_line = output.splitlines()[-1]
    assert last_line == f"finished {digest(state)} {[epoch.train_nll for epoch in epochs]}"
    assert ignored >= 3, "no kill hit a write"


def checkpoints(folder, settings=SETTINGS, **options):
    return Checkpoints(folder, settings, **{"seconds_between": 0, "say": lambda line: None, **options})


def first_epochs(folder, count):
    """Leaves the checkpoints of a run that stopped after some epochs."""
    finish(start(checkpoints(folder), epochs=count))


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
        f"Ignoring the unfinished checkpoint {tmp_path / name}"
        for name in ("5.unfinished", "6", "7.orbax-checkpoint-tmp")
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


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: flip(largest_file(folder / "6")), largest_file),
        (lambda folder: (folder / "6" / "run" / "metadata").unlink(), lambda _: "6/run/metadata"),
        (lambda folder: shutil.rmtree(folder / "6" / "state" / "d"), lambda _: "6/state/d/"),
        (lambda folder: flip(folder / "6.sha256"), lambda _: "6"),
        (cut_list, lambda _: "6.sha256"),
        (lambda folder: (folder / "6.sha256").write_bytes(b"\xff\x00"), lambda _: "6.sha256"),
    ],
    ids=["changed array", "lost progress", "lost folder", "changed list", "cut list", "garbage list"],
)
def test_damage_is_named_with_the_way_out(tmp_path, damage, named, undisturbed):
    first_epochs(tmp_path, 2)
    expected = named(tmp_path / "6") if named is largest_file else named(tmp_path)
    damage(tmp_path)
    with pytest.raises(FolderError) as refused:
        finish(start(checkpoints(tmp_path)))
    assert f"{tmp_path / expected}" in str(refused.value)
    advice = (
        f"is damaged or missing: the last good checkpoint is of step 5; remove {tmp_path}/6.sha256 to use it"
    )
    assert advice in str(refused.value)
    (tmp_path / "6.sha256").unlink()
    assert digest(finish(start(checkpoints(tmp_path)))[1]) == digest(undisturbed[1])


def test_damage_to_all_checkpoints_says_so(tmp_path):
    first_epochs(tmp_path, 2)
    for step in "56":
        flip(largest_file(tmp_path / step))
    with pytest.raises(FolderError, match=f"no other checkpoint is whole; remove {tmp_path} to start anew"):
        finish(start(checkpoints(tmp_path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet8"}, "model is 'resnet8' here and 'perceptron' there"),
        (
            {"optimizer": {**SETTINGS["optimizer"], "label": "LPSGD"}},
            "optimizer.label is 'LPSGD' here and 'LPSGDM' there",
        ),
        (
            {"optimizer": {**SETTINGS["optimizer"], "p": "8 → 2"}},
            "optimizer.p is '8 → 2' here and '6 → 2' there",
        ),
        ({"optimizer": {}}, "optimizer.label is None here and 'LPSGDM' there"),
    ],
)
def test_the_checkpoints_of_another_run_are_refused(tmp_path, change, message):
    first_epochs(tmp_path, 1)
    with pytest.raises(FolderError) as refused:
        finish(start(checkpoints(tmp_path, {**SETTINGS, **change})))
    assert str(refused.value) == f"{tmp_path} is of another run: {message}; name another folder"


def assert_fails_before_training(folder, message):
    trained = start(checkpoints(folder))
    with pytest.raises(FolderError, match=message):
        next(trained)


def test_a_full_disk_fails_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    assert_fails_before_training(tmp_path, "has 1 bytes left; the checkpoints need")


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
    assert said
    for line in said:
        assert line.startswith("No checkpoint of step ")
        assert line.endswith("The last one is of step none.")
        assert "\n" not in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_the_step_it_was_at(tmp_path, number, undisturbed):
    with interruption() as interrupted:
        run = start(checkpoints(tmp_path, seconds_between=1e9, interrupted=interrupted))
        next(run)
        signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert newest(tmp_path) == STEPS_PER_EPOCH + 1
    assert digest(finish(start(checkpoints(tmp_path)))[1]) == digest(undisturbed[1])


def test_a_second_interruption_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with interruption() as interrupted:
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
