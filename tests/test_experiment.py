"""The experiments' command line: quick mode writes what the full one does, and mistakes are one line."""

import errno
import importlib
import os
from pathlib import Path

import pytest

from benchmarks.reporting.experiment import main, markdown_table, write_csv

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["landscapes", "generalized_gaussians", "convergence_rate"])
def test_quick_mode_writes_the_files_that_are_committed_of_the_full_one(name, tmp_path, monkeypatch):
    experiment = importlib.import_module(f"benchmarks.{name}")
    if name == "generalized_gaussians":  # each compiles for a second, and has a test of its own.
        optimizers = {label: experiment.OPTIMIZERS[label] for label in ("AdamW", "Lion")}
        monkeypatch.setattr(experiment, "OPTIMIZERS", optimizers)
    assert main(name, experiment.run, "", ["--quick", "--output", str(tmp_path)]) == 0
    assert set(os.listdir(tmp_path)) == set(os.listdir(RESULTS / name))
    assert f"python -m benchmarks.{name} --output benchmarks/results/{name}" in experiment.__doc__
    quick, full = ((folder / "table.md").read_text() for folder in (tmp_path, RESULTS / name))
    assert "Measured with --quick" in quick
    assert "Measured with --quick" not in full


def test_the_page_ends_with_versions_and_machine(tmp_path, capsys):
    def run(quick, folder):
        assert (quick, folder) == (False, tmp_path / "new")
        assert folder.is_dir()
        return markdown_table(["a", "b"], [["1", "2"]]) + "\n\n"

    assert main("any", run, "", ["--output", str(tmp_path / "new")]) == 0
    table, blank, measured = (tmp_path / "new" / "table.md").read_text().rsplit("\n", 3)[0:3]
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert blank == ""
    assert measured.startswith("Measured with python ")
    assert str(tmp_path / "new") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(("arguments", "folder"), [([], "any"), (["--quick"], "any-quick")])
def test_quick_mode_has_a_default_folder_of_its_own(arguments, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main("any", lambda quick, folder: "", "", arguments) == 0
    assert os.listdir("runs") == [folder]


@pytest.mark.parametrize(
    "arguments", [["--quik"], ["--output", ""], ["--output", "FILE"], ["--output", "FILE/x"]]
)
def test_a_mistake_is_one_line(arguments, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main(
            "any",
            lambda quick, folder: "",
            "",
            [a.replace("FILE", str(tmp_path / "file")) for a in arguments],
        )
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks any: error: ")


def stop_with(error):
    def run(quick, folder):
        raise error

    return run


def test_the_folder_is_blamed_only_for_what_is_written_to_it(tmp_path, capsys):
    def write(quick, folder):
        (folder / "x.csv").mkdir()
        write_csv(folder / "x.csv", [{"a": 1}])

    unreadable = PermissionError(errno.EACCES, "Permission denied", "/data/images")
    command = ["--output", str(tmp_path)]
    for run, line in (
        (write, f"cannot write to the folder {tmp_path}: Is a directory; name another folder"),
        (stop_with(unreadable), "[Errno 13] Permission denied: '/data/images'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main("any", run, "", command)
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"python -m benchmarks any: error: {line}\n"


@pytest.mark.parametrize(("continues", "how"), [(False, ""), (True, " To continue, repeat the command.")])
def test_an_interruption_is_one_line_that_tells_how_to_continue(continues, how, tmp_path, capsys):
    command = ["--output", str(tmp_path)]
    assert main("any", stop_with(KeyboardInterrupt()), "", command, continues=continues) == 130
    assert capsys.readouterr().out == f"Interrupted.{how}\n"
