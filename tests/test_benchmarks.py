"""The benchmarks' command line: what its jobs write, how they continue, and how they fail."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.selection import select
from benchmarks.config.settings import presets
from benchmarks.data.registry import load
from benchmarks.reporting import report, timing
from benchmarks.reporting import tuning as tune
from benchmarks.training import loop as training
from benchmarks.training import runner as sweep
from benchmarks.training.loop import train
from benchmarks.training.records import FolderError, ResultsFolder, name, read

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
QUICK = ["compare", "--seeds", "1", "--epochs", "1", "--optimizers", "lpsgdm"]
REPORTED = {"table.md", "table.csv", "curves.png", "curves.svg"}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Lets the jobs see one of the eight devices that the tests have."""
    mesh = jax.make_mesh(
        (1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    monkeypatch.setattr(sweep, "all_devices", lambda: mesh)
    return mesh


def error_of(capsys, arguments):
    """Returns the one line that a refused command prints."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def files(folder):
    """Returns the names in a folder, those of records without what tells them apart."""
    return {
        path.name.partition("-")[0] if path.suffix == ".jsonl" else path.name for path in folder.iterdir()
    }


def digits(optimizer, epochs=1, seed=0):
    """Returns the settings of a run on the digits that selects on the validation images."""
    overrides = {"epochs": [epochs], "batch_size": [48], "held_out": ["validation"]}
    if optimizer not in ("sgdm", "adamw", "lion", "lpsgdm", "stacey_p2", "stacey_pp", "stacey_2p"):
        overrides["learning_rate"] = [0.01]
    (settings,) = select("digits", "resnet8", [optimizer], [seed], overrides)
    return settings


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name, one_device):
    *_, last = train(digits(name, 3, 1), load("digits", held_out="validation"), mesh=one_device)
    assert last.train_nll < 1.5 < np.log(10)
    assert last.held_out_metric > 0.6


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(one_device):
    dataset = load("digits", held_out="validation")
    first, second = (
        [
            epoch._replace(seconds=0, waiting=0)
            for epoch in train(digits("stacey_pp", 2), dataset, mesh=one_device)
        ]
        for _ in range(2)
    )
    assert first == second


@pytest.mark.slow
def test_another_seed_gives_another_run(one_device):
    dataset = load("digits")
    first, second = (next(train(digits("lpsgdm", seed=seed), dataset, mesh=one_device)) for seed in (0, 1))
    assert first.train_nll != second.train_nll


@pytest.mark.slow
def test_compare_writes_tables_pictures_and_records(tmp_path, capsys):
    output = tmp_path / "new" / "folder"
    assert main([*QUICK, "--output", str(output)]) == 0
    assert files(output) == {*REPORTED, "lpsgdm"}
    (run,) = read(output)
    assert run.finished
    assert (run.settings.optimizer, run.settings.seed) == ("lpsgdm", 0)
    assert 0 < run.epochs[0]["held_out_top1"] <= 1
    assert (output / "table.md").read_text(encoding="utf-8") == report.markdown([run])
    assert str(output) in capsys.readouterr().out.replace("\n", "")


SHORT = ["compare", "--seeds", "2", "--epochs", "3", "--optimizers", "sgdm"]


def interrupt_in_epoch(number, seed_to_interrupt, monkeypatch):
    """Lets Ctrl-C be pressed in an epoch of the run with a seed; returns what has been trained."""
    trained = []

    def train_and_interrupt(settings, *arguments, **options):
        for index, epoch in enumerate(train(settings, *arguments, **options)):
            trained.append((settings.seed, index))
            yield epoch
            if (settings.seed, index + 2) == (seed_to_interrupt, number):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sweep, "train", train_and_interrupt)
    return trained


def losses(folder):
    """Returns the measurements of all runs, by seed."""
    runs = sorted(read(folder), key=lambda run: run.settings.seed)
    return [[(epoch["train_nll"], epoch["held_out_top1"]) for epoch in run.epochs] for run in runs]


@pytest.mark.slow
def test_an_interrupted_comparison_reports_what_there_is_and_continues(tmp_path, monkeypatch, capsys):
    assert main([*SHORT, "--output", str(tmp_path / "whole")]) == 0
    command = [*SHORT, "--output", str(tmp_path / "cut")]
    interrupt_in_epoch(3, 1, monkeypatch)
    assert main(command) == 130
    assert f"repeat the command with --output {tmp_path / 'cut'}" in capsys.readouterr().out
    assert list(map(len, losses(tmp_path / "cut"))) == [3, 2]
    table = (tmp_path / "cut" / "table.md").read_text(encoding="utf-8")
    assert "| SGD with momentum | 2 |" in table
    assert "SGD with momentum with seed 1 was at " in table
    assert "% test top-1 after epoch 2." in table
    trained = interrupt_in_epoch(None, None, monkeypatch)
    assert main(command) == 0
    # The measurements before the interruption come from the checkpoint.
    assert trained == [(1, 0), (1, 1), (1, 2)]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert files(tmp_path / "cut") == {*REPORTED, "sgdm"}


@pytest.mark.slow
def test_a_comparison_interrupted_in_its_first_run_has_a_table(tmp_path, monkeypatch):
    interrupt_in_epoch(2, 0, monkeypatch)
    assert main([*SHORT, "--output", str(tmp_path)]) == 130
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "No run has finished. SGD with momentum with seed 0 was at " in table


def test_a_disk_that_is_full_at_the_end_is_one_clear_line(tmp_path, monkeypatch, capsys):
    def train_and_fill_disk(*arguments, **options):
        for epoch in train(*arguments, **options):
            (record,) = tmp_path.glob("*.jsonl")
            record.unlink()
            record.mkdir()  # nothing can be written there now
            yield epoch

    monkeypatch.setattr(sweep, "train", train_and_fill_disk)
    line = error_of(capsys, [*QUICK, "--output", tmp_path])
    assert f"cannot write to the folder {tmp_path}: Is a directory; name another folder" in line
    for unfinished in tmp_path.glob("*.jsonl*"):
        unfinished.rmdir() if unfinished.is_dir() else unfinished.unlink()
    trained = interrupt_in_epoch(None, None, monkeypatch)
    main([*QUICK, "--output", str(tmp_path)])
    assert trained == [(0, 0)]
    assert len(losses(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["at once", "in a run"])
def test_a_job_that_is_told_to_end_reports_what_there_is(tmp_path, moment):
    command = [sys.executable, "-m", "benchmarks", "compare", "--output", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    awaited = "checkpoints/*/*/sha256" if moment == "in a run" else "*.jsonl"
    while not any(tmp_path.glob(awaited)):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate()
    assert process.returncode == 130
    assert f"repeat the command with --output {tmp_path}" in output
    assert "No run has finished." in (tmp_path / "table.md").read_text()


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, monkeypatch, capsys):
    interrupt_in_epoch(2, 0, monkeypatch)
    main([*SHORT, "--output", str(tmp_path)])
    capsys.readouterr()
    # Interrupted after the first epoch, of 24 steps.
    (metadata,) = tmp_path.glob("checkpoints/sgdm-*/24/run/metadata")
    metadata.unlink()
    line = error_of(capsys, [*SHORT, "--output", tmp_path])
    assert f"cannot restore {metadata.parents[1]}: its files have changed; remove it to continue" in line
    assert list(map(len, losses(tmp_path))) == [1]


def test_jobs_share_the_work_of_a_folder(tmp_path):
    folder = ResultsFolder(tmp_path)
    with folder.lock(name(digits("sgdm"))) as ours, folder.lock(name(digits("lion"))) as ours_too:
        assert ours
        assert ours_too
        with folder.lock(name(digits("sgdm"))) as theirs:
            assert not theirs
    with folder.lock(name(digits("sgdm"))) as ours:
        assert ours
    assert not list(tmp_path.iterdir())


def test_a_run_that_another_job_is_about_is_left_to_it(tmp_path):
    (settings,) = select("digits", "resnet8", ["lpsgdm"], [0], {"epochs": [1]})
    with ResultsFolder(tmp_path).lock(name(settings)):
        assert main([*QUICK, "--output", str(tmp_path)]) == 0
        assert read(tmp_path) == []
    assert main([*QUICK, "--output", str(tmp_path)]) == 0
    assert len(read(tmp_path)) == 1


@pytest.mark.slow
def test_a_sweep_goes_through_all_combinations_and_continues(tmp_path, monkeypatch):
    command = ["sweep", "--optimizers", "lpsgdm", "sgdm", "--p", "3", "6", "--seeds", "2", "--epochs", "1"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    runs = read(tmp_path)
    tried = sorted((run.settings.optimizer, run.settings.p or 0, run.settings.seed) for run in runs)
    assert tried == [
        *(("lpsgdm", p, seed) for p in (3, 6) for seed in (0, 1)),
        *(("sgdm", 0, seed) for seed in (0, 1)),
    ]
    trained = interrupt_in_epoch(None, None, monkeypatch)
    assert main([*command[:-3], "3", "--epochs", "1", "--output", str(tmp_path)]) == 0
    assert trained == [(2, 0)] * 3


@pytest.mark.slow
def test_images_trains_one_run_on_what_it_is_told(tmp_path):
    command = ["images", "--optimizer", "lpsgdm", "--p", "4", "--epochs", "1", "--seed", "3"]
    main([*command, "--dtype", "bfloat16", "--decay", "kernels", "--output", str(tmp_path)])
    (run,) = read(tmp_path)
    named = ("optimizer", "p", "epochs", "seed", "dtype", "decay", "learning_rate")
    found = [getattr(run.settings, name) for name in named]
    assert found == ["lpsgdm", 4.0, 1, 3, "bfloat16", "kernels", 0.01]
    (epoch,) = run.epochs
    assert set(epoch) == {
        *("epoch", "p", "learning_rate", "train_nll", "train_top1", "held_out_nll", "held_out_top1"),
        *("seconds", "waiting"),
    }


TUNE = ["tune", "--seeds", "1", "--epochs", "1", "--batch-size", "50", "--optimizers", "sgdm", "lpsgdm"]


@pytest.mark.slow
def test_tune_tries_as_much_with_every_optimizer_and_continues(tmp_path, monkeypatch):
    command = [*TUNE, "--learning-rate", "0.1", "0.01", "0.001", "--trials", "2", "--output", str(tmp_path)]
    tried = []

    def train_three(settings, *arguments, **options):
        tried.append(settings)
        if len(tried) == 4:
            raise KeyboardInterrupt
        return train(settings, *arguments, **options)

    monkeypatch.setattr(sweep, "train", train_three)
    assert main(command) == 130
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| SGD with momentum |" in table
    assert "Not finished: 1 of the runs that have begun." in table
    assert main(command) == 0
    assert tried[3:] == [tried[3]] * 2
    rates = {
        name: [(run.learning_rate, run.weight_decay) for run in tried[:4] if run.optimizer == name]
        for name in ("sgdm", "lpsgdm")
    }
    assert rates["sgdm"] == rates["lpsgdm"]
    assert len(rates["sgdm"]) == 2
    assert {run.held_out for run in tried} == {"validation"}
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "Not finished" not in table
    # What was measured on test images is not shown as if it had been on these.
    records = "".join(file.read_text() for file in tmp_path.glob("sgdm*.jsonl"))
    (tmp_path / "tested.jsonl").write_text(records.replace('"validation"', '"test"'))
    assert main(command) == 0
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == table


@pytest.mark.slow
def test_time_tells_what_the_time_goes_into(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "ROUNDS", 2)
    command = ["time", "--optimizers", "sgdm", "--batch-size", "400", "600"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    text = (tmp_path / "timing.md").read_text(encoding="utf-8")
    columns, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["batch size"] for row in rows] == ["400", "600"]
    for row in rows:
        assert float(row["images / s"]) > 0
        assert 0 <= float(row["waiting for data, %"]) <= 100
        assert 0 < float(row["optimizer, % of the step"]) < 100
    assert "resnet8 on digits, float32; " in text


@pytest.mark.slow
def test_a_report_is_of_the_optimizers_and_epochs_asked_for(tmp_path, capsys):
    main([*SHORT, "--output", str(tmp_path / "runs")])
    capsys.readouterr()
    output = tmp_path / "report"
    assert main(["report", str(tmp_path / "runs"), "--at", "1", "3", "--output", str(output)]) == 0
    assert "train NLL, epoch 1 | test top-1, %, epoch 1 |" in (output / "table.md").read_text("utf-8")
    assert files(output) == REPORTED
    line = error_of(capsys, ["report", tmp_path / "runs", "--optimizers", "lion"])
    assert f"{tmp_path / 'runs'} has no results of lion" in line
    assert "does not exist" in error_of(capsys, ["report", tmp_path / "none"])


@pytest.mark.parametrize("study", ["hessian", "learning_rates"])
def test_a_report_of_a_study_that_keeps_little_is_one_clear_line(study, tmp_path, capsys):
    records = sorted((RESULTS / study / "runs").glob("digits*.jsonl"))[0]
    line = error_of(capsys, ["report", records, "--output", tmp_path])
    assert line.endswith("error: there is nothing to report: all records lack epochs or losses")
    assert not list(tmp_path.iterdir())


TUNED = [("tune", "digits"), ("fashion_mnist_tune", "fashion_mnist"), ("language_model_tune", "stdlib")]
IN_DOCS = {"compare": "digits.md", "fashion_mnist": "fashion_mnist.md", "language_model": "language_model.md"}


@pytest.mark.parametrize("folder", [*IN_DOCS, *(folder for folder, _ in TUNED)])
def test_the_committed_tables_are_those_of_the_committed_records(folder):
    runs = read(RESULTS / folder)
    table = (RESULTS / folder / "table.md").read_text(encoding="utf-8")
    if "tune" in folder:
        assert table == tune.table(runs)
    else:
        assert table == report.markdown(runs)
        assert table in (ROOT / "docs" / "reproducing" / IN_DOCS[folder]).read_text(encoding="utf-8")


@pytest.mark.parametrize(("folder", "dataset"), TUNED)
def test_the_presets_are_what_tune_chose(folder, dataset):
    chosen = tune.choose(read(RESULTS / folder))
    assert chosen
    for tuned in chosen:
        (preset,) = [
            row
            for row in presets(dataset, tuned.model, tuned.optimizer, "lpoptax")
            if row.get("p") == tuned.p
        ]
        named = {name: getattr(tuned, name) for name in (*tune.TUNED, "batch_size")}
        assert named.items() <= preset.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--optimizers", "adagrad"], "--optimizers must be one of sgdm, adamw, lion, "),
        (["compare", "--optimizers", "sgdm", "lpsgd"], "got 'lpsgd'"),
        (["compare", "--optimizers"], "--optimizers must have a value, got nothing"),
        (["sweep", "--paper", "stacey"], "there is no preset of --paper stacey for resnet8 on digits"),
        (["sweep", "--p"], "--p must have a value, got nothing"),
        (["sweep", "--p", "3", "1"], "--p must be a number above 1, got 1.0"),
        (["compare", "--epochs", "0"], "--epochs must be a whole number from 1 to 100000000, got 0"),
        (["compare", "--epochs", "99999999999999999999"], "must be a whole number from 1 to 100000000"),
        (["compare", "--output", ""], "an option must have a value, got nothing"),
        (["images", "--dataset", "mnist"], "--dataset must be one of digits, fashion_mnist, "),
        (["images", "--model", "resnet9"], "--model must be one of resnet4, resnet8, "),
        (["images", "--model", "llama_small", "--batch-size", "8"], "no preset for lpsgdm with llama_small"),
        (["images", "--optimizer", "adagrad"], "must be one of sgd, sgdm, "),
        (["images", "--paper", "adam"], "--paper must be one of lpsgdm, stacey, lpoptax, got 'adam'"),
        (["images", "--learning-rate", "-1"], "--learning-rate must be a number above 0, got -1.0"),
        (["images", "--p", "1"], "--p must be a number above 1, got 1.0"),
        (["images", "--p", "1.5"], "lpsgdm: p_max"),
        (["images", "--seed", "-1"], "--seed must be a whole number from 0 to 100000000, got -1"),
        (
            ["images", "--distributed", "here"],
            "must be nothing or ADDRESS:PORT COUNT RANK, got",
        ),
        (["images", "--optimizer", "adamw", "--p", "3"], "--p has no effect on adamw"),
        (["images", "--optimizer", "sgd"], "no preset for sgd with resnet8 on digits: name --batch-size, "),
        (
            ["images", "--paper", "stacey"],
            "--paper stacey has no preset for lpsgdm with resnet8 on digits",
        ),
        (
            ["images", "--batch-size", "1208"],
            "a batch of 1208 is more than the 1200 training images of digits",
        ),
        (
            ["images", "--dataset", "cifar10", "--model", "resnet18", "--data-dir", "/nowhere"],
            "cifar10 is not in",
        ),
        (["tune", "--optimizers", "sgdm", "--trials", "49"], "--trials 49 is more than the 48 settings"),
        (["tune", "--learning-rate", "0.1", "0"], "--learning-rate must be a number above 0, got 0.0"),
        (["report", ".", "--at", "0"], "--at must be a whole number from 1 to 100000000, got 0"),
        (["prepare", "mnist"], "there is no dataset mnist, but digits, "),
    ],
)
def test_a_wrong_value_is_one_clear_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = error_of(capsys, arguments)
    assert line.startswith("python -m benchmarks: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_batch_that_the_devices_do_not_divide_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.setattr(sweep, "all_devices", training.all_devices)
    line = error_of(capsys, ["images", "--batch-size", "33"])
    assert line.endswith("error: a batch of 33 cannot be divided over 8 devices: name a multiple of 8")


def test_a_folder_that_cannot_be_written_fails_before_training(tmp_path, capsys):
    (tmp_path / "file").touch()
    line = error_of(capsys, [*QUICK, "--output", tmp_path / "file" / "folder"])
    assert "cannot write to the folder" in line
    assert "Not a directory" in line
    assert "file is a file, not a folder" in error_of(capsys, [*QUICK, "--output", tmp_path / "file"])


@pytest.mark.slow
def test_runs_of_other_settings_stand_beside_each_other(tmp_path):
    main([*QUICK, "--output", str(tmp_path)])
    (first,) = read(tmp_path)
    main([*QUICK[:3], "--epochs", "2", *QUICK[5:], "--output", str(tmp_path)])
    assert len(read(tmp_path)) == 2
    assert first in read(tmp_path)


EXAMPLES = {"train": 900, "held_out": 300}


def test_records_that_count_images_are_read_and_continued(tmp_path):
    folder = ResultsFolder(tmp_path)
    run = folder.begin(digits("sgdm"), EXAMPLES)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace('"examples"', '"images"'))
    assert folder.begin(digits("sgdm"), EXAMPLES) == run


def test_files_may_be_joined_and_the_longest_record_of_a_run_counts(tmp_path):
    folder = ResultsFolder(tmp_path / "one")
    begun = folder.begin(digits("sgdm", 2), EXAMPLES)
    (file,) = folder.path.iterdir()
    texts = [file.read_text()]
    longer = folder.add(begun, {"epoch": 1, "train_nll": 0.5})
    texts.append(file.read_text())
    assert folder.add(longer, {"epoch": 1, "train_nll": 0.7}) == longer  # is there already.
    for order in (texts, texts[::-1]):
        (tmp_path / "joined.jsonl").write_text("".join(order))
        assert read(tmp_path) == [longer]
    # A job goes on with what was joined, too.
    joined = ResultsFolder(tmp_path)
    assert joined.find({longer.settings: EXAMPLES}) == {longer.settings: longer}
    assert joined.begin(longer.settings, EXAMPLES, longer) == longer


def test_a_record_of_other_data_or_versions_is_not_continued(tmp_path):
    folder = ResultsFolder(tmp_path)
    run = folder.begin(digits("sgdm"), EXAMPLES)
    (file,) = tmp_path.iterdir()
    with pytest.raises(FolderError, match="is of other data: train is 900 there and 901 here"):
        folder.begin(run.settings, {**EXAMPLES, "train": 901})
    text = file.read_text()
    file.write_text(text.replace(json.dumps(run.environment["jax"]), '"0.0.1"'))
    with pytest.raises(FolderError, match="is of another environment: jax is '0.0.1' there and"):
        folder.find({run.settings: EXAMPLES})
    # What is finished need not be continued.
    file.write_text(file.read_text() + '{"epoch": 1}\n')
    assert folder.find({run.settings: EXAMPLES})[run.settings].finished


def test_a_diverged_run_is_recorded_in_json_that_every_parser_reads(tmp_path):
    folder = ResultsFolder(tmp_path)
    run = folder.begin(digits("sgdm"), EXAMPLES)
    folder.add(run, {"epoch": 1, "train_nll": math.nan, "held_out_nll": math.inf, "held_out_top1": 0.1})
    (record,) = tmp_path.iterdir()

    def refuse(constant):
        raise AssertionError(constant)

    for line in record.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    (read_again,) = read(tmp_path)
    (epoch,) = read_again.epochs
    assert math.isnan(epoch["train_nll"])
    assert epoch["held_out_top1"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("damage", ['{"settings": {', "[]", '{"epoch": 1}', '{"settings": {"p": 3}}', '"x"'])
def test_a_damaged_record_is_never_overwritten(tmp_path, capsys, damage):
    main([*QUICK, "--output", str(tmp_path)])
    (record,) = tmp_path.glob("*.jsonl")
    record.write_text(damage)
    capsys.readouterr()
    line = error_of(capsys, [*QUICK, "--output", tmp_path])
    assert f"{record} is damaged; remove it to run it again" in line
    assert record.read_text() == damage


@pytest.mark.parametrize("job", ["", "compare", "images", "text", "sweep", "tune", "report", "prepare"])
def test_the_help_explains_itself(job, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*filter(None, [job]), "--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    for word in ("usage: python -m benchmarks", "--help"):
        assert word in help_text
    assert "%(" not in help_text
