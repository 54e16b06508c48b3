"""The studies' command line: quick mode writes what the full one does, and mistakes are one line."""

import errno
import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import cli
from benchmarks.reporting.tables import markdown_table, write_csv

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["landscapes", "gaussians", "convergence", "unscaled_inputs"])
def test_quick_mode_writes_the_files_that_are_committed_of_the_full_one(name, tmp_path, monkeypatch):
    study = importlib.import_module(f"benchmarks.studies.{name}")
    if name == "gaussians":  # each compiles for a second, and has a test of its own.
        optimizers = {label: study.OPTIMIZERS[label] for label in ("AdamW", "Lion")}
        monkeypatch.setattr(study, "OPTIMIZERS", optimizers)
    assert cli.main([name, "--quick", "--output", str(tmp_path)]) == 0
    assert set(os.listdir(tmp_path)) == set(os.listdir(RESULTS / name))
    assert f"python -m benchmarks {name} --output benchmarks/results/{name}" in study.__doc__
    quick, full = ((folder / "table.md").read_text() for folder in (tmp_path, RESULTS / name))
    assert "Measured with --quick" in quick
    assert "Measured with --quick" not in full


@pytest.fixture
def study_of(monkeypatch):
    """Returns a function that gives the study `any` what it runs."""

    def add(run, *, continues=False):
        monkeypatch.setitem(cli.STUDIES, "any", ("Do it.", continues))
        monkeypatch.setitem(sys.modules, "benchmarks.studies.any", SimpleNamespace(run=run))

    return add


def test_the_page_ends_with_versions_and_machine(study_of, tmp_path, capsys):
    def run(quick, folder):
        assert (quick, folder) == (False, tmp_path / "new")
        assert folder.is_dir()
        return markdown_table(["a", "b"], [["1", "2"]]) + "\n\n"

    study_of(run)
    assert cli.main(["any", "--output", str(tmp_path / "new")]) == 0
    table, blank, measured = (tmp_path / "new" / "table.md").read_text().rsplit("\n", 3)[0:3]
    assert table == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert blank == ""
    assert measured.startswith("Measured with python ")
    assert str(tmp_path / "new") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(("arguments", "folder"), [([], "any"), (["--quick"], "any-quick")])
def test_quick_mode_has_a_default_folder_of_its_own(arguments, folder, study_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study_of(lambda quick, folder: "")
    assert cli.main(["any", *arguments]) == 0
    assert os.listdir("runs") == [folder]


@pytest.mark.parametrize("arguments", [["--output", ""], ["--output", "FILE"], ["--output", "FILE/x"]])
def test_a_mistake_is_one_line(arguments, study_of, tmp_path, capsys):
    (tmp_path / "file").touch()
    study_of(lambda quick, folder: "")
    with pytest.raises(SystemExit) as stop:
        cli.main(["any", *(argument.replace("FILE", str(tmp_path / "file")) for argument in arguments)])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m benchmarks")
    assert ": error: " in line


def stop_with(error):
    def run(quick, folder):
        raise error

    return run


def test_the_folder_is_blamed_only_for_what_is_written_to_it(study_of, tmp_path, capsys):
    def write(quick, folder):
        (folder / "x.csv").mkdir()
        write_csv(folder / "x.csv", [{"a": 1}])

    unreadable = PermissionError(errno.EACCES, "Permission denied", "/data/images")
    for run, line in (
        (write, f"cannot write to the folder {tmp_path}: Is a directory; name another folder"),
        (stop_with(unreadable), "[Errno 13] Permission denied: '/data/images'"),
    ):
        study_of(run)
        with pytest.raises(SystemExit) as stop:
            cli.main(["any", "--output", str(tmp_path)])
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"python -m benchmarks: error: {line}\n"


@pytest.mark.parametrize(("continues", "how"), [(False, ""), (True, " To continue, repeat the command.")])
def test_an_interruption_is_one_line_that_tells_how_to_continue(continues, how, study_of, tmp_path, capsys):
    study_of(stop_with(KeyboardInterrupt()), continues=continues)
    assert cli.main(["any", "--output", str(tmp_path)]) == 130
    assert capsys.readouterr().out == f"Interrupted.{how}\n"
