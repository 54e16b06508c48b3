"""The benchmarks: what they train on, what they write, and how they fail."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from benchmarks import compare, report, tune
from benchmarks.command_line import main
from benchmarks.datasets import DATASETS
from benchmarks.models import MODELS
from benchmarks.optimizers import OPTIMIZERS, build, describe
from benchmarks.training import train

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
QUICK = ["compare", "--seeds", "1", "--epochs", "1", "--optimizers", "lpsgdm"]


def error_of(capsys, arguments):
    """Returns the one line that a refused command prints."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_digits_are_split_without_overlap():
    dataset = DATASETS["digits"]()
    splits = (dataset.train, dataset.validation, dataset.test)
    assert [len(split.labels) for split in splits] == [900, 300, 597]
    images = [{image.tobytes() for image in split.images} for split in splits]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]
    for split in splits:
        assert split.images.shape[1:] == (8, 8, 1)
        # All ten digits, about equally often.
        assert np.ptp(np.bincount(split.labels, minlength=10)) <= 5
    assert dataset.train.images.mean() == pytest.approx(0, abs=1e-5)
    assert dataset.train.images.std() == pytest.approx(1, abs=1e-5)


def test_the_model_is_a_resnet_8():
    model = MODELS["resnet8"](channels=3, classes=7, rngs=nnx.Rngs(0))
    model.eval()
    assert model(np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 7)
    kernels = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim > 1]
    # Stem, two convolutions in each of three blocks, head; and two projections of shortcuts.
    assert len(kernels) == 1 + 6 + 1 + 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_the_same_way_from_the_same_seed(name):
    dataset = DATASETS["digits"]()
    optimizer = build(OPTIMIZERS[name], 3 * 18)
    first, second = (
        [
            epoch._replace(seconds=0)
            for epoch in train(
                "resnet8", dataset, dataset.validation, optimizer, epochs=3, batch_size=50, seed=1
            )
        ]
        for _ in range(2)
    )
    assert first == second
    assert first[-1].train_nll < 1.0 < np.log(10)
    assert first[-1].held_out_top1 > 0.8


def test_another_seed_gives_another_run():
    dataset = DATASETS["digits"]()
    optimizer = build(OPTIMIZERS["lpsgdm"], 18)
    first, second = (
        next(train("resnet8", dataset, dataset.test, optimizer, epochs=1, batch_size=50, seed=seed))
        for seed in (0, 1)
    )
    assert first.train_nll != second.train_nll


def test_compare_writes_a_table_a_picture_and_the_results(tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert main([*QUICK, "--output", str(output)]) == 0
    assert {path.name for path in output.iterdir()} == {"table.md", "curves.png", "results.json"}
    results = json.loads((output / "results.json").read_text())
    (run,) = results["runs"]
    assert (run["optimizer"], run["seed"], len(run["epochs"])) == ("lpsgdm", 0, 1)
    assert 0 < run["epochs"][0]["held_out_top1"] <= 1
    assert (output / "table.md").read_text(encoding="utf-8") == report.table(results)
    assert str(output) in capsys.readouterr().out.replace("\n", "")


SHORT = ["compare", "--seeds", "2", "--epochs", "3", "--optimizers", "sgdm"]


def interrupt_in_epoch(number, seed_to_interrupt, monkeypatch):
    """Lets Ctrl-C be pressed in an epoch of the run with a seed; returns what has been trained."""
    trained = []

    def train_and_interrupt(*arguments, seed, **options):
        for index, epoch in enumerate(train(*arguments, seed=seed, **options)):
            trained.append((seed, index))
            yield epoch
            if (seed, index + 2) == (seed_to_interrupt, number):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(compare, "train", train_and_interrupt)
    return trained


def losses(folder):
    """Returns the measurements of the finished runs."""
    runs = json.loads((folder / "results.json").read_text())["runs"]
    return [[(epoch["train_nll"], epoch["held_out_top1"]) for epoch in run["epochs"]] for run in runs]


def test_an_interrupted_comparison_reports_what_there_is_and_continues(tmp_path, monkeypatch, capsys):
    assert main([*SHORT, "--output", str(tmp_path / "whole")]) == 0
    command = [*SHORT, "--output", str(tmp_path / "cut")]
    interrupt_in_epoch(3, 1, monkeypatch)
    assert main(command) == 130
    assert f"repeat the command with --output {tmp_path / 'cut'}" in capsys.readouterr().out
    assert len(losses(tmp_path / "cut")) == 1
    table = (tmp_path / "cut" / "table.md").read_text(encoding="utf-8")
    assert "| SGD with momentum | 2 |" in table
    assert "Mean ± standard deviation over 2 seeds, of which not all have finished" in table
    assert "no difference can be told from noise. SGD with momentum with seed 1 was at " in table
    assert "% test top-1 after epoch 2." in table
    trained = interrupt_in_epoch(None, None, monkeypatch)
    assert main(command) == 0
    # The measurements before the interruption come from the checkpoint.
    assert trained == [(1, 0), (1, 1), (1, 2)]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"table.md", "curves.png", "results.json"}


def test_a_comparison_interrupted_in_its_first_run_has_a_table(tmp_path, monkeypatch):
    interrupt_in_epoch(2, 0, monkeypatch)
    assert main([*SHORT, "--output", str(tmp_path)]) == 130
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "No run has finished. SGD with momentum with seed 0 was at " in table


def test_a_refused_continuation_changes_nothing(tmp_path, monkeypatch):
    interrupt_in_epoch(3, 0, monkeypatch)
    main([*SHORT, "--output", str(tmp_path)])
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    shutil.rmtree(tmp_path / "checkpoints" / "sgdm-0" / "37" / "run")
    with pytest.raises(SystemExit):
        main([*SHORT, "--output", str(tmp_path)])
    assert before == {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert len(json.loads((tmp_path / "results.json").read_text())["unfinished"][0]["epochs"]) == 2


def test_a_disk_that_is_full_at_the_end_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def train_and_fill_disk(*arguments, **options):
        yield from train(*arguments, **options)
        (tmp_path / "results.json.unfinished").mkdir()  # nothing can be written there now

    monkeypatch.setattr(compare, "train", train_and_fill_disk)
    line = error_of(capsys, [*QUICK, "--output", tmp_path])
    assert f"cannot write to the folder {tmp_path}: Is a directory; make room or name another folder" in line
    (tmp_path / "results.json.unfinished").rmdir()
    trained = interrupt_in_epoch(None, None, monkeypatch)
    main([*QUICK, "--output", str(tmp_path)])
    assert trained == [(0, 0)]
    assert len(losses(tmp_path)) == 1


def test_a_job_that_is_told_to_end_reports_what_there_is(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "tune", "--output", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "results.json").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    output, _ = process.communicate()
    assert process.returncode == 130
    assert f"repeat the command with --output {tmp_path}" in output
    assert "No setting has been tried." in (tmp_path / "table.md").read_text()


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, monkeypatch, capsys):
    interrupt_in_epoch(2, 0, monkeypatch)
    main([*SHORT, "--output", str(tmp_path)])
    capsys.readouterr()
    # Interrupted in the second epoch of 18 steps: in its first step.
    metadata = tmp_path / "checkpoints" / "sgdm-0" / "19" / "run" / "metadata"
    metadata.unlink()
    line = error_of(capsys, [*SHORT, "--output", tmp_path])
    assert f"{metadata} is damaged or missing: the last good checkpoint is of step 0" in line


def test_an_interrupted_tuning_shows_what_there_is_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "LEARNING_RATES", (0.1, 0.01))
    monkeypatch.setattr(tune, "WEIGHT_DECAYS", (0.01,))
    runs = []

    def train_three(*arguments, **options):
        runs.append(arguments)
        if len(runs) == 4:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(tune, "train", train_three)
    command = ["tune", "--seeds", "1", "--epochs", "1", "--optimizers", "sgdm", "lpsgdm"]
    assert main([*command, "--output", str(tmp_path)]) == 130
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| SGD with momentum |" in table
    assert "Interrupted: settings still to try: 1." in table
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert len(runs) == 5
    assert "Interrupted" not in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_tune_ranks_by_the_validation_images_and_survives_divergence():
    def run(name, learning_rate, *nll):
        return {
            "optimizer": name,
            "learning_rate": learning_rate,
            "weight_decay": 0.0,
            "validation_nll": list(nll),
            "validation_top1": [0.9] * len(nll),
        }

    runs = [
        run("sgdm", 1.0, float("nan"), 0.1),
        run("sgdm", 0.1, 0.2, 0.3),
        run("sgdm", 0.01, 0.3, 0.3),
        run("lion", 0.1, 0.5, 0.5),
    ]
    results = {"runs": runs, "settings": {"epochs": 20, "seeds": 2}}
    best = tune.choose(results)
    assert {name: chosen["learning_rate"] for name, chosen in best.items()} == {"sgdm": 0.1, "lion": 0.1}
    assert "| SGD with momentum | 0.1 | 0 | 0.2500 | 90.00 |" in tune.table(results)
    assert "The best of learning rates 0.01, 0.1, 1 with weight decays 0," in tune.table(results)


def test_tune_runs_the_same_grid_for_every_optimizer(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "LEARNING_RATES", (0.1, 0.01))
    monkeypatch.setattr(tune, "WEIGHT_DECAYS", (0.01,))
    tune.tune(["sgdm", "lpsgdm"], 1, 1, tmp_path, Console(quiet=True))
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    tried = {
        name: [r["learning_rate"] for r in runs if r["optimizer"] == name] for name in ("sgdm", "lpsgdm")
    }
    assert tried == {"sgdm": [0.1, 0.01], "lpsgdm": [0.1, 0.01]}
    assert (tmp_path / "table.md").exists()


def test_the_settings_are_those_that_tune_chose():
    results = json.loads((RESULTS / "tune" / "results.json").read_text())
    best = tune.choose(results)
    for name, optimizer in OPTIMIZERS.items():
        chosen = (best[name]["learning_rate"], best[name]["weight_decay"])
        assert (optimizer.learning_rate, optimizer.weight_decay) == chosen, name
    assert (RESULTS / "tune" / "table.md").read_text(encoding="utf-8") == tune.table(results)


def test_the_committed_table_is_that_of_the_committed_results_and_of_the_readme():
    results = json.loads((RESULTS / "compare" / "results.json").read_text())
    table = (RESULTS / "compare" / "table.md").read_text(encoding="utf-8")
    assert table == report.table(results)
    assert table in (ROOT / "README.md").read_text()
    described = {name: describe(OPTIMIZERS[name], 20, 18) for name in OPTIMIZERS}
    assert results["settings"]["optimizers"] == described


def test_the_report_says_when_a_difference_is_within_noise():
    def results(*top1_of_each):
        names = [f"optimizer {index}" for index in range(len(top1_of_each))]
        described = {"p": "2", "learning_rate": 0.1, "weight_decay": 0, "p_by_epoch": [2.0]}
        return {
            "settings": {
                "model": "m",
                "dataset": "d",
                "batch_size": 1,
                "epochs": 1,
                "seeds": 3,
                "optimizers": {name: {"label": name, **described} for name in names},
            },
            "environment": {"python": "1", "jax": "1", "flax": "1", "optax": "1", "machine": "m"},
            "unfinished": [],
            "runs": [
                {
                    "optimizer": name,
                    "epochs": [
                        {"train_nll": 0.1, "held_out_nll": 0.1, "held_out_top1": value, "seconds": 1.0}
                    ],
                }
                for name, values in zip(names, top1_of_each, strict=True)
                for value in values
            ],
        }

    text = report.table(results([0.90, 0.92, 0.91], [0.905, 0.925, 0.91], [0.5, 0.51, 0.52]))
    assert "The highest test top-1 is that of optimizer 1. Within noise of it" in text
    assert "(95 % Welch interval): optimizer 0." in text
    assert "| 91.00 ± 1.00 |" in text
    equal = report.table(results([0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.8, 0.8, 0.8]))
    assert "(95 % Welch interval): optimizer 1." in equal
    assert "Within noise" not in report.table(results([0.9, 0.9, 0.9], [0.8, 0.8, 0.8]))
    assert "From single runs no difference can be told" in report.table(results([0.9], [0.8]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: JOB"),
        (["train"], "invalid choice: 'train'"),
        (["compare", "--optimizer", "adam"], "invalid choice: 'adam'"),
        (["compare", "--epoch"], "expected one argument"),
        (["compare", "--epochs", "0"], "must be a whole number from 1 to 100000, got '0'"),
        (["compare", "--epochs", "99999999999999999999"], "must be a whole number from 1 to 100000"),
        (["compare", "--seeds", "two"], "must be a whole number from 1 to 100000, got 'two'"),
        (["compare", "--output", ""], "must name a folder, got nothing"),
        (["compare", "--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_a_wrong_option_is_one_clear_line(arguments, message, capsys):
    assert message in error_of(capsys, arguments)


def test_a_folder_that_cannot_be_written_fails_before_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    line = error_of(capsys, [*QUICK, "--output", tmp_path / "file" / "folder"])
    assert "cannot write to the folder" in line
    assert "Not a directory" in line
    assert "file is a file, not a folder" in error_of(capsys, [*QUICK, "--output", tmp_path / "file"])


def test_results_of_other_settings_are_never_overwritten(tmp_path, capsys):
    main([*QUICK, "--output", str(tmp_path)])
    before = (tmp_path / "results.json").read_text()
    capsys.readouterr()
    line = error_of(capsys, [*QUICK, "--epochs", "2", "--output", tmp_path])
    assert "holds other results: settings.epochs is 1 there and 2 here; name another folder" in line
    assert (tmp_path / "results.json").read_text() == before


def test_results_of_other_versions_are_not_continued(tmp_path, capsys):
    main([*QUICK, "--output", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    results["environment"]["jax"] = "0.0.1"
    (tmp_path / "results.json").write_text(json.dumps(results))
    capsys.readouterr()
    line = error_of(capsys, [*QUICK, "--output", tmp_path])
    assert "holds other results: environment.jax is '0.0.1' there and" in line


def test_a_job_does_not_continue_the_folder_of_another(tmp_path, capsys):
    main([*QUICK, "--output", str(tmp_path)])
    before = (tmp_path / "results.json").read_text()
    capsys.readouterr()
    # All settings of tune are equal here; compare has one more.
    line = error_of(capsys, ["tune", "--seeds", "1", "--epochs", "1", "--output", tmp_path])
    assert "holds other results: settings.optimizers is only there" in line
    assert (tmp_path / "results.json").read_text() == before


@pytest.mark.parametrize("damage", ['{"settings": {', "[]", '{"runs": []}', '{"runs": [], "settings": 3}'])
def test_a_damaged_results_file_is_never_overwritten(tmp_path, capsys, damage):
    (tmp_path / "results.json").write_text(damage)
    assert "results.json is damaged; name another folder" in error_of(capsys, [*QUICK, "--output", tmp_path])
    assert (tmp_path / "results.json").read_text() == damage


def test_the_help_explains_itself():
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "compare", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    for word in ("digits", "--optimizers", "--seeds", "--epochs", "--output", "lpsgdm", "(default: 3)"):
        assert word in run.stdout
