"""The study of learning rates: its runs are the benchmarks', its choices right, and it continues."""

import dataclasses
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.models.registry import MODELS, Model
from benchmarks.studies import learning_rates as one_learning_rate
from benchmarks.studies.grid_selection import best_rate, contenders, losses, recipe, shared_rate
from benchmarks.studies.grid_training import Cell, Norm, Task, data, halve, one_device, train
from benchmarks.studies.learning_rates import FULL, QUICK, complete, rates, validation_parts
from benchmarks.training.loop import train as train_alone
from benchmarks.training.records import ResultsFolder
from tests.test_hessian import Linear

README = Path(__file__).parents[1] / "README.md"
RESULTS = README.parent / "benchmarks" / "results" / "learning_rates"
TASK = Task("digits", "resnet4", 48, 2, 96, 48)
TEXT = FULL.tasks[2]
TWO, SIX, ANNEALED = Norm(2.0, 2.0), Norm(6.0, 6.0), Norm(6.0, 2.0)


@pytest.fixture(autouse=True)
def _linear(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet4", Model(Linear))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "optimizer"), [("none", "lpsgdm"), ("adamw", "adamw")])
def test_a_run_of_the_grid_is_that_of_the_benchmarks(method, optimizer):
    cells = [Cell(method, ANNEALED, rate, 1) for rate in (0.01, 0.1)]
    dataset = data(TASK, "validation")
    for cell, record in zip(cells, train(TASK, cells, "validation"), strict=True):
        settings = dataclasses.replace(
            TASK.settings(1), optimizer=optimizer, learning_rate=cell.learning_rate, p=6.0, anneal="step"
        )
        *_, last = train_alone(settings, dataset, mesh=one_device())
        assert record["held_out_nll"] == pytest.approx(last.held_out_nll, rel=1e-4)
        assert record["held_out_top1"] == pytest.approx(last.held_out_top1)


def test_images_are_halved_by_means_of_four_pixels():
    images = np.array([[[0, 2, 8, 8], [4, 6, 8, 9]]], np.uint8)[..., None]
    assert halve(images)[0, :, :, 0].tolist() == [[3, 8]]


@pytest.mark.parametrize("task", [FULL.tasks[0], FULL.tasks[2]])
def test_the_training_data_is_the_same_when_the_test_split_is_held_out(task):
    validation, test = (data(task, held_out) for held_out in ("validation", "test"))
    np.testing.assert_array_equal(validation.train.inputs, test.train.inputs)
    assert (len(validation.train), len(validation.held_out)) == (task.train, task.validation)
    assert not np.array_equal(validation.held_out.inputs, test.held_out.inputs)


def test_learning_rates_are_one_and_three_times_powers_of_ten():
    assert rates(3e-4, 0.1) == (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


def records(nll_by_cell, top1=0.9):
    return {
        Cell(method, norm, rate, seed): {"held_out_nll": nll + seed / 100, "held_out_top1": top1 - nll / 10}
        for (method, norm, rate), nll in nll_by_cell.items()
        for seed in range(2)
    }


def grid_of(method, norm, nll):
    return {(method, norm, rate): value for rate, value in zip((0.01, 0.1, 1.0), nll, strict=True)}


def test_the_best_rate_has_the_least_mean_nll_and_no_run_that_diverged():
    found = records(grid_of("rms", TWO, (0.7, 0.5, 0.6)))
    assert best_rate(found, "rms", TWO) == 0.1
    for rate in (0.01, 0.1):
        found[Cell("rms", TWO, rate, 1)]["held_out_nll"] = math.nan
    assert best_rate(found, "rms", TWO) == 1.0


def test_the_one_rate_loses_least_over_all_p_and_its_loss_is_told_by_p():
    found = records(grid_of("rms", TWO, (0.5, 0.6, 0.9)) | grid_of("rms", SIX, (1.0, 0.6, 0.5)))
    assert shared_rate(found, "rms", [TWO, SIX]) == 0.1
    # By p and seed: points, and nats.
    np.testing.assert_allclose(losses(TASK, found, "rms", [TWO, SIX], 0.1), [[1.0] * 2] * 2)
    np.testing.assert_allclose(losses(TEXT, found, "rms", [TWO, SIX], 1.0), [[0.4] * 2, [0.0] * 2])
    found[Cell("rms", TWO, 0.1, 1)]["held_out_nll"] = math.nan  # whatever it got right by chance
    assert np.isnan(losses(TASK, found, "rms", [TWO], 0.1)).tolist() == [[False, True]]


def test_the_recipe_is_best_over_tasks_and_the_others_of_theirs():
    easy = grid_of("rms", ANNEALED, (0.10, 0.11, 0.30)) | grid_of("rms", TWO, (0.09, 0.2, 0.3))
    hard = grid_of("rms", ANNEALED, (6.0, 4.0, 4.0)) | grid_of("rms", TWO, (1.0, 1.1, 1.2))
    others = grid_of("none", ANNEALED, (5.0, 5.0, 4.0)) | grid_of("adamw", TWO, (3.0, 2.0, 4.0))
    tasks = [records(easy), records(hard | others)]
    assert recipe(tasks) == (ANNEALED, 0.1)
    chosen = contenders(tasks, tasks[1])
    assert [(contender.cell, contender.candidates) for contender in chosen] == [
        (Cell("rms", ANNEALED, 0.1, 0), 3),
        (Cell("rms", TWO, 0.01, 0), 3),  # is the best of all p, too.
        (Cell("none", ANNEALED, 1.0, 0), 3),
        (Cell("adamw", TWO, 0.1, 0), 3),
    ]
    better = records(grid_of("rms", ANNEALED, (6.0, 0.2, 4.0)) | grid_of("rms", SIX, (0.1, 6.0, 6.0)))
    with_two = records(hard) | better
    names = [contender.name for contender in contenders([with_two], with_two)]
    assert names[2] == "LPSGDM at unit RMS, p 6, the best"


def test_the_study_continues_run_by_run_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    trained = []

    def train_and_interrupt(task, cells, held_out):
        for cell, record in zip(cells, train(task, cells, held_out), strict=True):
            trained.append((held_out, cell))
            yield record
            if len(trained) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(one_learning_rate, "train", train_and_interrupt)
    command = ["--quick", "--output", str(tmp_path)]
    assert main(["learning_rates", *command]) == 130
    assert main(["learning_rates", *command]) == 0
    planned = [(part.held_out, cell) for part in validation_parts(QUICK) for cell in part.cells]
    assert trained[: len(planned)] == planned
    tested = [cell._replace(seed=0) for held_out, cell in trained[len(planned) :] if held_out == "test"]
    assert len(trained) - len(planned) == len(tested) == len(set(tested)) * len(QUICK.test_seeds)
    assert set(os.listdir(tmp_path)) == {"runs", "table.md", "digits.png", "validation.csv"}
    assert set(os.listdir(tmp_path)) < set(os.listdir(RESULTS))
    assert not list(tmp_path.glob("runs/*.lock"))
    page = (tmp_path / "table.md").read_text()
    assert "| digits, top-1 % | the recipe: LPSGDM at unit RMS, p 6 → 2 | " in page

    monkeypatch.setattr(one_learning_rate, "train", None)
    assert main(["learning_rates", *command]) == 0
    assert (tmp_path / "table.md").read_text() == page
    (tmp_path / "runs" / "digits-rms-seed0.jsonl").write_text("{")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["learning_rates", *command])
    assert "digits-rms-seed0.jsonl is damaged; remove it to run it again" in capsys.readouterr().err


def test_what_diverged_is_recorded_and_runs_of_another_plan_are_refused(tmp_path, monkeypatch):
    def diverge(task, cells, held_out):
        return ({"held_out_nll": math.nan, "held_out_top1": 0.1} for _ in cells)

    monkeypatch.setattr(one_learning_rate, "train", diverge)
    part = next(validation_parts(QUICK))
    for _ in range(2):
        (found,) = complete([part], ResultsFolder(tmp_path)).values()
        assert [math.isnan(record["held_out_nll"]) for record in found.values()] == [True] * len(part.cells)
    with pytest.raises(one_learning_rate.FolderError, match="this study: epochs is 1 there and 2 here"):
        complete([part._replace(task=TASK)], ResultsFolder(tmp_path))
    other = part._replace(cells=part.cells[::-1])
    with pytest.raises(one_learning_rate.FolderError, match="this study: its runs are others"):
        complete([other], ResultsFolder(tmp_path))


def test_the_study_gives_others_no_fewer_rates_at_a_p_than_unit_rms():
    tried = {name: len(grid.learning_rates) for name, grid in FULL.grids.items()}
    assert min(tried, key=tried.get) == "rms"
    assert len(set(FULL.seeds) & set(FULL.test_seeds)) == 0


def test_the_readme_shows_what_was_measured():
    section = README.read_text().split("## How to choose p_max")[1].split("## What to expect")[0]
    shown = re.findall(r"\d+\.\d+ ± \d+\.\d+", "\n".join(re.findall(r"^\|.*", section, re.MULTILINE)))
    table = (RESULTS / "table.md").read_text().split("## The recipe on test data")[1]
    assert shown == re.findall(r"\d+\.\d+ ± \d+\.\d+", table)
    assert "the recipe: LPSGDM at unit RMS, p 12 → 2 | 14 | 0.001 |" in table
    assert "schedule(0.0, 0.001," in section
    assert "p_max=12.0" in section
