"""One learning rate for every p: how far the best one moves with p, by how long a step is made.

Question: the length of LPSGDM's step depends on p, so that each p has a learning rate of its own. Does
one serve all if the step has the factor of the dual norm, or unit root mean square?

Setting: LPSGDM at a constant p and with p annealed every step from p_max to 2, each with three lengths
of a step: as published, times the factor of the dual norm (LPSGDM paper, eq. 10), and at unit RMS over
the whole tree. A ResNet-8 on 900 of the digits, for 10 epochs; one on 6,400 images of Fashion-MNIST
reduced to 14 x 14, for 4; a small Llama on 1,536 sequences of Python's standard library, for 1. The
learning rate warms up for a twentieth of the steps and decays along a cosine; no weight decay; three
seeds. The best rate has the lowest mean NLL on validation data. SGD with momentum and AdamW have rates
of their own, as many as LPSGDM as published has at one p.

The recipe is the p_max and the rate, of unit RMS, with the lowest mean ratio of the NLL to the best of its
task: one choice for all tasks. It is trained with five more seeds and judged on the test data, beside p = 2
and, if that is another, the best p of all at unit RMS, chosen alike; and beside LPSGDM as published, SGD with
momentum and AdamW with what is best for the task.

    python -m benchmarks learning_rates --output benchmarks/results/learning_rates

continues where it was interrupted, epoch by epoch. Several such jobs share the work.

Result (Python 3.11.7, JAX 0.10.2, a core for each of two jobs, n = 3): with p the best rate moves by a factor
of 100 to more than 3000 as published, by 3000 to more than 300,000 with the dual norm, and by 1 to 10 at unit
RMS, where one rate loses 0.00 to 0.24 points of accuracy and 0.008 to 0.023 nats in the mean over p. The
recipe is p from 12 to 2 at 0.001. On test data (n = 5) it cannot be told from AdamW tuned for each task.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.config.grid import Grid, Norm, rates, runs_of
from benchmarks.config.settings import Settings
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.statistics import final
from benchmarks.reporting.tables import write_csv
from benchmarks.studies import learning_rates_report as report
from benchmarks.training.records import PACKAGES, ResultsFolder, Run, measured_with
from benchmarks.training.runner import complete

CONSTANT: tuple[Norm, ...] = tuple((p, p) for p in (2.0, 3.0, 6.0, math.inf))
COSINE: tuple[Norm, ...] = tuple((p_max, 2.0) for p_max in (2.0, 6.0, 12.0))
BOTH = tuple(dict.fromkeys(CONSTANT + COSINE))


class Study(NamedTuple):
    """All that is trained."""

    tasks: tuple[dict[str, Any], ...]
    grids: tuple[Grid, ...]
    seeds: Sequence[int]
    test_seeds: Sequence[int]


FULL = Study(
    (
        {"dataset": "digits_900", "model": "resnet8_products", "batch_size": 50, "epochs": 10},
        {
            "dataset": "fashion_mnist_14x14",
            "model": "resnet8_stride2_products",
            "batch_size": 128,
            "epochs": 4,
        },
        {"dataset": "stdlib_1536", "model": "llama_small", "batch_size": 8, "epochs": 1},
    ),
    (
        Grid("lpsgdm", rates(3e-4, 3), BOTH),
        Grid("lpsgdm", rates(1e-6, 3), BOTH, {"normalization": "dual_norm"}),
        Grid("lpsgdm", rates(1e-4, 0.1), BOTH, {"normalization": "rms"}),
        Grid("sgdm", rates(3e-4, 3)),
        Grid("adamw", rates(1e-4, 1)),
    ),
    seeds=range(3),
    test_seeds=range(3, 8),
)
QUICK = Study(
    ({"dataset": "digits_900", "model": "resnet4", "batch_size": 300, "epochs": 1},),
    (
        Grid("lpsgdm", (0.1, 1.0), (CONSTANT[0], COSINE[1])),
        Grid("lpsgdm", (0.003, 0.01), (CONSTANT[0], COSINE[1]), {"normalization": "rms"}),
        Grid("sgdm", (0.1,)),
    ),
    seeds=range(1),
    test_seeds=range(1, 3),
)


def validation_runs(study: Study) -> list[Settings]:
    """Returns the runs that are judged on validation data."""
    return [run for task in study.tasks for grid in study.grids for run in runs_of(task, grid, study.seeds)]


def test_runs(study: Study, validated: Sequence[Run]) -> list[Settings]:
    """Returns the runs that are judged on test data, with what was best on validation data."""
    frame = final(validated)
    settings = {report.key(row): row.setting for _, row in frame.iterrows()}
    chosen = report.contenders(frame)
    return [
        dataclasses.replace(settings[report.key(row)], seed=seed, held_out="test")
        for _, row in chosen.iterrows()
        for seed in study.test_seeds
    ]


def run(quick: bool, folder: Path) -> str:
    """Trains what the folder lacks; writes figures and numbers, and returns the answers."""
    study, runs = QUICK if quick else FULL, ResultsFolder(folder / "runs")
    validated = complete(validation_runs(study), runs)
    tested = complete(test_runs(study, validated), runs)
    frame = final(validated)
    for dataset, of_task in frame.groupby("dataset", sort=False):
        write_figure(folder / f"{dataset}.png", report.heat_maps(of_task, _title(study, str(dataset))))
    write_csv(folder / "validation.csv", report.means(frame))
    titles = {task["dataset"]: _title(study, task["dataset"]) for task in study.tasks}
    page = report.page(frame, final(tested), titles)
    # Where the runs were trained, which need not be here.
    environments = (run.environment for run in (*validated, *tested))
    return f"{page}\n\n{measured_with(environments, PACKAGES).replace('Measured', 'Trained')}"


def _title(study: Study, dataset: str) -> str:
    (task,) = (task for task in study.tasks if task["dataset"] == dataset)
    return f"{task['model']} on {dataset}"
