"""The study of every p on singular values: its choices are right, and all have as many rates."""

import math
from pathlib import Path

import pandas as pd

from benchmarks.reporting.statistics import final
from benchmarks.studies.matrices import FULL, test_runs, validation_runs
from benchmarks.studies.matrices_report import CHOICE, OURS, best, contenders, recipe
from benchmarks.training.records import read

test_runs.__test__ = False  # it is no test, for all its name.
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "matrices"


def frame(nll_by_choice):
    rows = [
        dict(zip(CHOICE, choice, strict=True)) | {"seed": seed, "held_out_nll": nll + seed / 100}
        for choice, nll in nll_by_choice.items()
        for seed in range(2)
    ]
    return pd.DataFrame(rows)


def grid_of(task, method, p, nll, weight_decay=0.0):
    rates = (0.01, 0.1, 1.0)
    optimizer = {"A": "adamw", "M": "muon", "S": "schatten_sgdm"}[method[0]]
    return {(task, optimizer, method, p, rate, weight_decay): x for rate, x in zip(rates, nll, strict=True)}


FOUND = frame(
    grid_of("digits", OURS, "3", (0.3, 0.1, 0.3))
    | grid_of("digits", OURS, "6", (0.3, 0.13, 0.3))
    | grid_of("digits", OURS, "∞", (0.12, 0.3, 0.4))
    | grid_of("digits", OURS + " of hidden matrices", "∞", (0.01, 0.3, 0.4))
    | grid_of("digits", "AdamW", "none", (math.nan, 0.5, 0.4))
    | grid_of("digits", "Muon", "∞", (0.3, 0.5, 0.4))
    | grid_of("digits", "Muon of all matrices", "∞", (0.5, 0.2, 0.4))
    | grid_of("stdlib", OURS, "3", (4.0, 5.6, 6.0))
    | grid_of("stdlib", OURS, "6", (4.5, 4.7, 5.0))
    | grid_of("stdlib", OURS, "∞", (4.6, 4.7, 5.0))
    | grid_of("stdlib", OURS, "3", (1.0, 1.0, 1.0), weight_decay=0.1)
    | grid_of("stdlib", "AdamW", "none", (3.0, 2.0, 4.0))
    | grid_of("stdlib", "Muon", "∞", (3.0, 2.0, 4.0))
    | grid_of("stdlib", "Muon of all matrices", "∞", (3.0, 5.0, 4.0))
)


def test_the_best_rate_and_decay_have_the_least_nll_and_no_run_that_diverged():
    rows = best(FOUND).set_index(["dataset", "method", "p"])
    assert rows.loc[("digits", OURS, "3"), "learning_rate"] == 0.1
    assert rows.loc[("stdlib", OURS, "3"), "weight_decay"] == 0.1
    adamw = rows.loc[("digits", "AdamW", "none")]
    assert (adamw.learning_rate, adamw.at_an_end) == (1.0, True)


def test_the_recipe_is_one_choice_for_all_tasks_without_weight_decay():
    assert recipe(FOUND) == ("∞", 0.01)


def test_the_recipe_the_best_of_all_and_p_infinity_are_judged_on_each_task():
    chosen = contenders(FOUND)
    for task, muon in (("digits", "Muon of all matrices, p ∞"), ("stdlib", "Muon, p ∞")):
        first, *others = chosen[chosen.dataset == task].name
        assert first == "the recipe: Schatten SGDM, p ∞"
        assert others == ["Schatten SGDM, p 3", "Schatten SGDM, p ∞", "AdamW", muon]


def test_all_have_as_many_rates_on_a_task_and_other_seeds_for_the_test():
    for task in FULL.tasks:
        assert len({len(grid.learning_rates) for grid in task.grids}) == 1
        assert not set(task.seeds) & set(FULL.test_seeds)
    runs = validation_runs(FULL)
    # 9 of ours and 5 others; rates; seeds or weight decays; three small tasks and a large one.
    assert len(runs) == len(set(runs)) == 14 * 5 * 3 * 3 + 14 * 3 * 2


def test_the_committed_records_are_those_of_the_study():
    runs = {run.settings: run for run in read(RESULTS / "runs")}
    validated = validation_runs(FULL)
    tested = test_runs(FULL, final([runs[settings] for settings in validated]))
    assert runs.keys() == {*validated, *tested}
    assert all(run.finished for run in runs.values())


def test_the_site_shows_what_was_measured():
    table = (RESULTS / "table.md").read_text().split("## Test")[1]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    page = (ROOT / "docs" / "reproducing" / "matrices.md").read_text()
    assert [row for row in rows if row not in page] == []
    assert "is p 12 → 2 at 0.003 without weight decay" in table
