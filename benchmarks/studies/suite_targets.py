"""Targets of the suite, fixed before its contestants run: what NAdamW reaches at three quarters of a run.

Setting: on every workload of `benchmarks/config/workloads.csv` NAdamW has 30 trials, whose learning rates
and weight decays are the first of Halton's points. The trial that is
best on validation data at three quarters of the run is trained with three more seeds, on validation and on
test data. The medians of what these reach at three quarters are the targets. When the contestants had
their trials, the space of NAdamW, among others, had to be moved (see `suite`); the targets stayed.

    python -m benchmarks suite_targets --output benchmarks/results/suite

writes `targets.csv`, which is committed before `python -m benchmarks suite` runs with the same folder. It
continues where it was interrupted, epoch by epoch; several such jobs share the work. That is 36 runs for
each workload: 288.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.config.suite import (
    Cell,
    Contestant,
    Workload,
    contestants,
    hyperparameters,
    settings_of,
    workloads,
)
from benchmarks.data.registry import objective_of
from benchmarks.reporting.tables import table_of, write_csv
from benchmarks.training.records import ResultsFolder, Run
from benchmarks.training.runner import complete

TARGETS = "targets.csv"
PART = 0.75  # of a run, at which its target is read.
# NAdamW where it was looked for when the targets were fixed; as a contestant its space begins higher.
REFERENCE = Contestant("NAdamW", "nadamw", {}, (3e-4, 3e-2), (1e-3, 1.0), "")


class Suite(NamedTuple):
    """All that is trained."""

    workloads: Sequence[Workload]
    contestants: Sequence[Contestant]
    target_trials: int
    target_seeds: Sequence[int]
    trials: int  # of each contestant: in studies of so many.
    of_study: int
    seeds: Sequence[int]  # of the configuration that is the same for all workloads.
    study_seeds: Sequence[int]  # of the best trial of each study.


FULL = Suite(workloads(), contestants(), 30, range(9, 12), 15, 5, range(1, 6), range(6, 9))
QUICK = Suite(
    [
        Workload("A network on digits", "digits_900", "resnet4", 300, 2),
        Workload("The same in batches of 450", "digits_900", "resnet4", 450, 2),
    ],
    [one for one in contestants() if one.name in ("AdamW", "NAdamW", "LPSGDM at unit RMS, p 12 → 2")],
    target_trials=2,
    target_seeds=range(9, 10),
    trials=2,
    of_study=1,
    seeds=range(1, 3),
    study_seeds=range(6, 8),
)


def curve(run: Run) -> np.ndarray:
    """Returns what decides, after each epoch: nan where the run diverged."""
    name = f"held_out_{objective_of(run.settings.dataset).judged_by}"
    values = np.array([epoch[name] for epoch in run.epochs if epoch["epoch"] > 0])
    # Answers that are no numbers are right by chance.
    values[-1] = values[-1] if np.isfinite(run.epochs[-1]["held_out_nll"]) else np.nan
    return values


def is_higher_better(workload: Workload) -> bool:
    """Says whether what decides is to be high."""
    return objective_of(workload.dataset).judged_by == "top1"


def losses(workload: Workload, values: np.ndarray) -> np.ndarray:
    """Returns figures with their sign such that the lowest is best, the worst of all where a run diverged."""
    return np.where(np.isfinite(values), -values if is_higher_better(workload) else values, np.inf)


def trained(cells: Sequence[Cell], runs: ResultsFolder) -> list[np.ndarray]:
    """Trains what the folder lacks, and returns the curve of each run."""
    return [curve(run) for run in complete(list(map(settings_of, cells)), runs)]


def target_of(suite: Suite, workload: Workload, runs: ResultsFolder) -> dict[str, object]:
    """Returns a row of the file: the targets of a workload and where they come from."""
    at = evaluation_of(workload)
    tried = [Cell(workload, REFERENCE, trial, 0, "validation") for trial in range(suite.target_trials)]
    found = losses(workload, np.array([values[at] for values in trained(tried, runs)]))
    best = int(found.argmin())
    row: dict[str, object] = {"workload": workload.name, "measure": objective_of(workload.dataset).judged_by}
    for held_out in ("validation", "test"):
        again = [Cell(workload, REFERENCE, best, seed, held_out) for seed in suite.target_seeds]
        row[held_out] = float(np.median([values[at] for values in trained(again, runs)]))
    rate, decay = hyperparameters(REFERENCE, best)
    return {**row, "trial": best, "learning_rate": rate, "weight_decay": decay}


def evaluation_of(workload: Workload) -> int:
    """Returns the place of the evaluation at which a target is read."""
    return round(PART * workload.epochs) - 1


def fix(suite: Suite, folder: Path) -> pd.DataFrame:
    """Trains what the folder lacks, writes the targets, and returns them."""
    runs = ResultsFolder(folder / "runs")
    rows = [target_of(suite, workload, runs) for workload in suite.workloads]
    write_csv(folder / TARGETS, rows)
    return pd.DataFrame(rows)


def run(quick: bool, folder: Path) -> str:
    """Fixes the targets, and returns them as a page."""
    suite = QUICK if quick else FULL
    rows = fix(suite, folder)
    return (
        f"## Targets\n\n{table_of(rows)}\n\nWhat {REFERENCE.name} reaches at three quarters of a run: the "
        f"median over {len(suite.target_seeds)} seeds of the best of {suite.target_trials} trials."
    )
