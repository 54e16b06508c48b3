"""The study of learning rates: its choices are right, and it continues."""

import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.cli import main
from benchmarks.config.grid import rates
from benchmarks.data.registry import load
from benchmarks.data.splits import halve
from benchmarks.models.registry import MODELS, Model
from benchmarks.studies.learning_rates import FULL, QUICK, validation_runs
from benchmarks.studies.learning_rates_report import (
    best_for_all,
    best_rate,
    contenders,
    losses,
    recipe,
)
from benchmarks.training.records import read
from tests.test_hessian import Linear

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "learning_rates"
RMS, PUBLISHED = "LPSGDM at unit RMS", "LPSGDM"


def test_images_are_halved_by_means_of_four_pixels():
    images = np.array([[[0, 2, 8, 8], [4, 6, 8, 9]]], np.uint8)[..., None]
    assert halve(images)[0, :, :, 0].tolist() == [[3, 8]]


@pytest.mark.parametrize(
    ("name", "train", "validation"), [("digits_900", 900, 300), ("stdlib_1536", 1536, 256)]
)
def test_the_training_data_of_a_part_is_the_same_when_the_test_split_is_held_out(name, train, validation):
    of_validation, of_test = (load(name, held_out=held_out) for held_out in ("validation", "test"))
    np.testing.assert_array_equal(of_validation.train.inputs, of_test.train.inputs)
    assert (len(of_validation.train), len(of_validation.held_out)) == (train, validation)
    assert not np.array_equal(of_validation.held_out.inputs, of_test.held_out.inputs)


def test_learning_rates_are_one_and_three_times_powers_of_ten():
    assert rates(3e-4, 0.1) == (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)


def frame(nll_by_choice, dataset="digits"):
    rows = [
        {
            "dataset": dataset,
            "method": method,
            "p": p,
            "learning_rate": rate,
            "seed": seed,
            "held_out_nll": nll + seed / 100,
            "shown": nll + seed / 100 if dataset == "stdlib" else 90 - 10 * nll,
        }
        for (method, p, rate), nll in nll_by_choice.items()
        for seed in range(2)
    ]
    return pd.DataFrame(rows)


def grid_of(method, p, nll):
    return {(method, p, rate): value for rate, value in zip((0.01, 0.1, 1.0), nll, strict=True)}


def test_the_best_rate_has_the_least_mean_nll_and_no_run_that_diverged():
    found = frame(grid_of(RMS, "2", (0.7, 0.5, 0.6)))
    assert best_rate(found) == 0.1
    found.loc[found.learning_rate.isin((0.01, 0.1)) & (found.seed == 1), "held_out_nll"] = math.nan
    assert best_rate(found) == 1.0


def test_the_one_rate_loses_least_over_all_p_and_its_loss_is_told_by_p():
    grid = grid_of(RMS, "2", (0.5, 0.6, 0.9)) | grid_of(RMS, "6", (1.0, 0.6, 0.5))
    images, text = frame(grid), frame(grid, "stdlib")
    assert best_for_all(images, ["learning_rate"], "p") == 0.1
    # By p and seed: points, and nats.
    np.testing.assert_allclose(losses(images, 0.1), [[1.0] * 2] * 2)
    np.testing.assert_allclose(losses(text, 1.0), [[0.4] * 2, [0.0] * 2], atol=1e-12)
    images.loc[(images.p == "2") & (images.learning_rate == 0.1) & (images.seed == 1), "shown"] = math.nan
    assert np.isnan(losses(images[images.p == "2"], 0.1)).to_numpy().tolist() == [[False, True]]


def test_the_recipe_is_best_over_tasks_and_the_others_of_theirs():
    easy = grid_of(RMS, "6 → 2", (0.10, 0.11, 0.30)) | grid_of(RMS, "2", (0.09, 0.2, 0.3))
    hard = grid_of(RMS, "6 → 2", (6.0, 4.0, 4.0)) | grid_of(RMS, "2", (1.0, 1.1, 1.2))
    others = grid_of(PUBLISHED, "6 → 2", (5.0, 5.0, 4.0)) | grid_of("AdamW", "none", (3.0, 2.0, 4.0))
    both = pd.concat([frame(easy), frame(hard | others, "stdlib")])
    assert recipe(both) == ("6 → 2", 0.1)
    chosen = contenders(both)
    of_text = chosen[chosen.dataset == "stdlib"][["method", "p", "learning_rate", "tried"]]
    assert of_text.to_numpy().tolist() == [
        [RMS, "6 → 2", 0.1, 3],
        [RMS, "2", 0.01, 3],  # is the best of all p, too.
        [PUBLISHED, "6 → 2", 1.0, 3],
        ["AdamW", "none", 0.1, 3],
    ]
    better = grid_of(RMS, "6 → 2", (6.0, 0.2, 4.0)) | grid_of(RMS, "6", (0.1, 6.0, 6.0))
    names = contenders(frame(hard | better, "stdlib")).name
    assert list(names)[2] == "LPSGDM at unit RMS, p 6, the best"


@pytest.mark.slow
def test_the_study_continues_run_by_run_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "resnet4", Model(Linear))
    command = ["learning_rates", "--quick", "--output", str(tmp_path)]
    assert main(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "runs",
        "table.md",
        "digits_900.png",
        "validation.csv",
    }
    assert set(os.listdir(tmp_path)) < set(os.listdir(RESULTS))
    page = (tmp_path / "table.md").read_text()
    assert "| digits_900, top-1 % | the recipe: LPSGDM at unit RMS, p 6 → 2 | " in page
    runs = read(tmp_path / "runs")
    planned = validation_runs(QUICK)
    assert {run.settings for run in runs if run.settings.held_out == "validation"} == set(planned)
    tested = [run.settings for run in runs if run.settings.held_out == "test"]
    assert len(tested) == len({(run.p, run.learning_rate, run.normalization) for run in tested}) * 2

    files = sorted((tmp_path / "runs").iterdir())
    written = {file: file.stat().st_mtime_ns for file in files[1:]}
    files[0].unlink()
    assert main(command) == 0
    assert files[0].exists()
    assert written == {file: file.stat().st_mtime_ns for file in files[1:]}
    assert (tmp_path / "table.md").read_text() == page
    files[0].write_text("{")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(command)
    assert f"{files[0].name} is damaged; remove it to run it again" in capsys.readouterr().err


def test_the_study_gives_others_no_fewer_rates_at_a_p_than_unit_rms():
    tried = {
        (grid.optimizer, grid.fixed.get("normalization")): len(grid.learning_rates) for grid in FULL.grids
    }
    assert min(tried, key=tried.get) == ("lpsgdm", "rms")
    assert len(set(FULL.seeds) & set(FULL.test_seeds)) == 0


def test_the_committed_records_are_those_of_the_study():
    runs = read(RESULTS / "runs")
    assert {run.settings for run in runs if run.settings.held_out == "validation"} == set(
        validation_runs(FULL)
    )
    assert all(run.finished for run in runs)


def test_the_page_on_choosing_shows_what_was_measured():
    section = (ROOT / "docs" / "start" / "choosing.md").read_text()
    shown = re.findall(r"\d+\.\d+ ± \d+\.\d+", "\n".join(re.findall(r"^\|.*", section, re.MULTILINE)))
    table = (RESULTS / "table.md").read_text().split("## The recipe on test data")[1]
    assert shown == re.findall(r"\d+\.\d+ ± \d+\.\d+", table)
    assert "the recipe: LPSGDM at unit RMS, p 12 → 2 | 14 | 0.001 |" in table
    assert "schedule(0.0, 0.001," in section
    assert "p_max=12.0" in section
