"""Every p between gradient descent and Muon: which is best, and does it help to change p?

Question: on singular values p = 2 is gradient descent and p = infinity is Muon's step. Is one between them
better, or a p that falls or rises during training? How does the family compare with Muon and AdamW, tuned
for each task and with one choice for all?

Setting: Schatten SGDM, which makes steps of one length whatever p is, at p = 3, 6, 12 and infinity; with p
falling from 40 or 12 to 2; and rising from 3 to infinity, all every step along half a cosine. All kernels
and embeddings are matrices; at p = infinity also, for comparison, only the kernels of hidden layers, and all
with plain momentum. Beside it Muon of either kind of matrices, AdamW, Lion, and LPSGDM at unit RMS with p
from 12 to 2. The tasks are those of the study of learning rates, without weight decay, where all have five
learning rates, a factor of 3 apart, and three seeds; and the language model on all of Python's standard
library, 768 steps of 16 sequences, where all have three rates with weight decay 0 and 0.1, and one seed;
those of Muon, AdamW and LPSGDM were moved by one when the best had been at an end. The best rate and decay
have the lowest mean NLL on validation data.

The recipe is the p and the rate of Schatten SGDM, without weight decay, with the lowest mean ratio of the NLL
to its own best on the task. It, the best of each optimizer, and p = infinity are trained with other seeds and
judged on the test data.

    python -m benchmarks matrices --output benchmarks/results/matrices

continues where it was interrupted, epoch by epoch. Several such jobs share the work.

Result (n = 5, test data): p = infinity, tuned, is ahead of tuned Muon on Fashion-MNIST and on both tasks of
text, and of AdamW by 1.1 points and by 0.3 to 1.0 nats; on the digits none can be told apart. The recipe is p
from 12 to 2 at 0.003. Constant and annealed p from 12 on are alike; small ones, and one that rises, are worse
on text.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.config.grid import Grid, Norm, rates, runs_of
from benchmarks.config.settings import Settings
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.statistics import final
from benchmarks.reporting.tables import write_csv
from benchmarks.studies import learning_rates
from benchmarks.studies.matrices_report import (
    CHOICE,
    contenders,
    draw,
    means,
    one_choice_table,
    recipe,
    test_table,
    validation_table,
)
from benchmarks.training.records import PACKAGES, ResultsFolder, measured_with
from benchmarks.training.runner import complete

NORMS: tuple[Norm, ...] = (
    *((p, p) for p in (3.0, 6.0, 12.0, math.inf)),
    (40.0, 2.0),
    (12.0, 2.0),
    (3.0, math.inf),
)
MUONS: tuple[Norm, ...] = ((math.inf, math.inf),)


class Task(NamedTuple):
    """What is trained on, and what is tried there."""

    settings: dict[str, Any]
    grids: tuple[Grid, ...]
    seeds: Sequence[int]


class Study(NamedTuple):
    """All that is trained."""

    tasks: tuple[Task, ...]
    test_seeds: Sequence[int]


def _grids(ours: Norm, muon: Norm, adamw: Norm, lion: Norm, lpsgdm: Norm) -> tuple[Grid, ...]:
    """Returns what is tried with rates from the first to the last of each."""
    return (
        Grid("schatten_sgdm", rates(*ours), NORMS),
        Grid("schatten_sgdm", rates(*ours), MUONS, {"matrices": "hidden"}),
        Grid("schatten_sgdm", rates(*ours), MUONS, {"nesterov": False}),
        Grid("muon", rates(*muon)),
        Grid("muon", rates(*muon), fixed={"matrices": "all"}),
        Grid("adamw", rates(*adamw)),
        Grid("lion", rates(*lion)),
        Grid("lpsgdm", rates(*lpsgdm), ((12.0, 2.0),), {"normalization": "rms"}),
    )


_SMALL = _grids((3e-4, 3e-2), (1e-3, 0.1), (3e-4, 3e-2), (1e-4, 1e-2), (1e-4, 1e-2))
_LARGE = _grids((3e-4, 3e-3), (3e-3, 3e-2), (3e-4, 3e-3), (1e-4, 1e-3), (1e-4, 1e-3))

FULL = Study(
    (
        *(Task(settings, _SMALL, range(3)) for settings in learning_rates.FULL.tasks),
        Task(
            {
                "dataset": "stdlib",
                "model": "llama_small",
                "batch_size": 16,
                "epochs": 6,
                "weight_decay": [0.0, 0.1],
            },
            _LARGE,
            range(1),
        ),
    ),
    test_seeds=range(3, 8),
)
QUICK = Study(
    (
        Task(
            {"dataset": "digits_900", "model": "resnet4", "batch_size": 300, "epochs": 1},
            (
                Grid("schatten_sgdm", (0.003, 0.01), ((3.0, math.inf), (math.inf, math.inf))),
                Grid("muon", (0.01,)),
            ),
            range(1),
        ),
    ),
    test_seeds=range(1, 3),
)


def validation_runs(study: Study) -> list[Settings]:
    """Returns the runs that are judged on validation data."""
    return [
        run for task in study.tasks for grid in task.grids for run in runs_of(task.settings, grid, task.seeds)
    ]


def test_runs(study: Study, frame: pd.DataFrame) -> list[Settings]:
    """Returns the runs that are judged on test data."""
    settings = {tuple(row[CHOICE]): row.setting for _, row in frame.iterrows()}
    chosen = dict.fromkeys(settings[tuple(row[CHOICE])] for _, row in contenders(frame).iterrows())
    return [
        dataclasses.replace(setting, seed=seed, held_out="test")
        for setting in chosen
        for seed in study.test_seeds
    ]


def run(quick: bool, folder: Path) -> str:
    """Trains what the folder lacks; writes figures and numbers, and returns the answers."""
    study, runs = QUICK if quick else FULL, ResultsFolder(folder / "runs")
    validated = complete(validation_runs(study), runs)
    frame = final(validated)
    tested = complete(test_runs(study, frame), runs)
    write_figure(folder / "rates.png", draw(frame))
    write_csv(folder / "validation.csv", means(frame))
    p, rate = recipe(frame)
    environments = (run.environment for run in (*validated, *tested))
    return (
        f"## Validation\n\n{validation_table(frame)}\n\nEach at its best learning rate and weight decay, by "
        "the mean NLL over the seeds (edge: no lower, or no higher, rate was tried).\n\n"
        f"## One choice for all tasks\n\n{one_choice_table(frame)}\n\nThe p and the rate of "
        "each optimizer that have the lowest mean, over the tasks, of the validation NLL relative to the "
        "lowest of all; without weight decay.\n\n"
        f"## Test\n\nThe recipe, one choice for all tasks, is p {p} at {rate:g} without weight decay.\n\n"
        f"{test_table(frame, final(tested))}\n\nMean ± standard deviation over {len(study.test_seeds)} other "
        "seeds. All but the recipe are tuned for each task. Intervals are Welch's, of what decides (of "
        "images top-1, of text NLL), not corrected for their number.\n\n"
        f"{measured_with(environments, PACKAGES).replace('Measured', 'Trained')}"
    )
