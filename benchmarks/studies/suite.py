"""A suite of workloads on one CPU core: which optimizer reaches a target first, tuned and untuned.

Question: what does an optimizer give on a problem of which nothing is known, and what if it is tuned a
little? Fair answers need targets that are fixed beforehand, equal budgets for tuning, several kinds of
problems, and profiles over all of them. AlgoPerf (Dahl et al., 2023) is the model of this suite, which is
not AlgoPerf.

Setting: the workloads are rows of `benchmarks/config/workloads.csv`, the contestants rows of
`contestants.csv` beside it, with their search spaces. All have the same schedule, a warm-up over a
twentieth of the steps and a cosine, but for Schedule-Free, which stays at its rate. Every contestant has 15
trials on every workload: the first of Halton's points in its space. Targets are those of `python -m
benchmarks suite_targets`, without which no contestant runs. A run is judged at the end of each of its 16 or
20 epochs, which are short.

- No tuning: one trial for all workloads, on each that which is best on the others: by the mean logarithm of
  the time to the validation target (a target that is never reached counts as four budgets), and among
  equals by the mean rank of the last result. It is trained with five new seeds and judged on test data.
- Tuned: the trials are three studies of five. The best of each by the same two figures on the workload
  itself is trained with one new seed and judged on test data; the median of the three counts.

Time is counted in steps, and in steps times what a training step costs with the optimizer, relative to
AdamW's: from the study of the time of a step, where gradients take 50 times as long as AdamW's step (bound
by computation) or as long (bound by memory).

Search spaces: the first choice of them was moved by half a factor of ten, rates and decays against each
other, where on three workloads or more the best trial lay in the outer sixth of the rates at the same end,
or all trials diverged. That was decided on validation data, by one rule for all contestants.

Runs: for each workload 36 for its target, and for each contestant there 15 trials, 5 runs without tuning and
3 tuned; of 2 to 20 seconds each, once compiled.

    python -m benchmarks suite_targets --output benchmarks/results/suite
    python -m benchmarks suite --output benchmarks/results/suite

The second continues where it was interrupted, epoch by epoch. Several such jobs share the work.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.config.settings import SettingsError
from benchmarks.config.suite import Cell, hyperparameters
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.profiles import best_trial, evaluations_to
from benchmarks.reporting.tables import write_csv
from benchmarks.studies.suite_figures import draw
from benchmarks.studies.suite_report import page
from benchmarks.studies.suite_targets import (
    FULL,
    QUICK,
    TARGETS,
    Suite,
    fix,
    is_higher_better,
    losses,
    trained,
)
from benchmarks.training.records import PACKAGES, ResultsFolder, measured_with, read

# Of what is computed; rates and decays have few digits as they are.
DIGITS = {"time": 6, "result": 6, "loss": 6}


def trial_cells(suite: Suite) -> list[Cell]:
    """Returns the runs from which configurations are chosen."""
    return [
        Cell(workload, contestant, trial, 0, "validation")
        for workload in suite.workloads
        for contestant in suite.contestants
        for trial in range(suite.trials)
    ]


def judged(suite: Suite, cells: Sequence[Cell], targets: pd.DataFrame, runs: ResultsFolder) -> pd.DataFrame:
    """Trains what is missing; returns a row for each run: when it reached its target, and how it ended."""
    rows = []
    for cell, values in zip(cells, trained(cells, runs), strict=True):
        target = targets.loc[cell.workload.name, cell.held_out]
        count = evaluations_to(values, target, higher=is_higher_better(cell.workload))
        last = values[-1:]
        rate, decay = hyperparameters(cell.contestant, cell.trial)
        rows.append(
            {
                "workload": cell.workload.name,
                "contestant": cell.contestant.name,
                "trial": cell.trial,
                "learning_rate": rate,
                "weight_decay": decay,
                "seed": cell.seed,
                "time": count / cell.workload.epochs,  # in budgets.
                "result": last[0],
                "loss": losses(cell.workload, last)[0],
            }
        )
    return pd.DataFrame(rows)


def untuned(trials: pd.DataFrame, workload: str) -> int:
    """Returns a contestant's trial that is best on the other workloads."""
    others = trials[trials.workload != workload]
    return _best(others)


def tuned(trials: pd.DataFrame, workload: str, of_study: int) -> list[int]:
    """Returns a contestant's best trial on a workload, in each study of so many."""
    here = trials[trials.workload == workload]
    return [_best(study) for _, study in here.groupby(here.trial // of_study)]


def _best(trials: pd.DataFrame) -> int:
    ranks = trials.assign(rank=trials.groupby("workload").loss.rank())
    times, ranks = (ranks.pivot(index="trial", columns="workload", values=name) for name in ("time", "rank"))
    return best_trial(times, ranks)


def test_cells(suite: Suite, trials: pd.DataFrame) -> Iterator[tuple[str, Cell]]:
    """Yields the runs that are judged on test data, each with its track."""
    for workload, contestant in itertools.product(suite.workloads, suite.contestants):
        own = trials[trials.contestant == contestant.name]
        one = untuned(own, workload.name)
        for seed in suite.seeds:
            yield "No tuning", Cell(workload, contestant, one, seed, "test")
        best = tuned(own, workload.name, suite.of_study)
        for trial, seed in zip(best, suite.study_seeds, strict=True):
            yield "Tuned", Cell(workload, contestant, trial, seed, "test")


def targets_in(folder: Path) -> pd.DataFrame:
    """Returns the targets by workload; refuses to go on without them."""
    file = folder / TARGETS
    if not file.is_file():
        raise SettingsError(
            f"{file} is missing: `python -m benchmarks suite_targets --output {folder}` fixes the targets, "
            "before any contestant runs"
        )
    return pd.read_csv(file).set_index("workload")


def run(quick: bool, folder: Path) -> str:
    """Trains what the folder lacks; writes figures and numbers, and returns the answers."""
    suite, runs = QUICK if quick else FULL, ResultsFolder(folder / "runs")
    if quick:
        fix(suite, folder)
    targets = targets_in(folder)
    if missing := {workload.name for workload in suite.workloads} - set(targets.index):
        raise SettingsError(f"{folder / TARGETS} has no target for {', '.join(sorted(missing))}")
    trials = judged(suite, trial_cells(suite), targets, runs)
    tracks, cells = zip(*test_cells(suite, trials), strict=True)
    tested = judged(suite, cells, targets, runs).assign(track=tracks)
    write_csv(folder / "trials.csv", trials.round(DIGITS))
    write_csv(folder / "tests.csv", tested.round(DIGITS))
    for track, there in tested.groupby("track"):
        name = str(track).lower().replace(" ", "_")
        write_figure(folder / f"{name}.png", draw(there, str(track)))
    environments = (run.environment for run in read(runs.path))
    answers = page(suite, targets, trials, tested)
    return f"{answers}\n\n{measured_with(environments, PACKAGES).replace('Measured', 'Trained')}"
