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
to the best of its task. It, the best of each optimizer, and p = infinity are trained with other seeds and
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
import seaborn as sns
from matplotlib.figure import Figure

from benchmarks.config.grid import Grid, Norm, rates, runs_of
from benchmarks.config.settings import Settings
from benchmarks.reporting.figures import write_figure
from benchmarks.reporting.statistics import (
    difference,
    final,
    is_at_an_end,
    mean_std,
    measure_of,
    scores,
)
from benchmarks.reporting.tables import table_of, write_csv
from benchmarks.studies import learning_rates
from benchmarks.training.records import PACKAGES, ResultsFolder, measured_with
from benchmarks.training.runner import complete

OPTIMIZER, OURS = "schatten_sgdm", "Schatten SGDM"
NORMS: tuple[Norm, ...] = (
    *((p, p) for p in (3.0, 6.0, 12.0, math.inf)),
    (40.0, 2.0),
    (12.0, 2.0),
    (3.0, math.inf),
)
MUONS: tuple[Norm, ...] = ((math.inf, math.inf),)
DRAWN = (OURS, "Muon", "AdamW", "Lion", "LPSGDM at unit RMS")
CHOICE = ["dataset", "optimizer", "method", "p", "learning_rate", "weight_decay"]
CHOSEN = {"learning_rate": "learning rate", "weight_decay": "weight decay"}


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


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each task, method and p: the best rate and decay, and whether it is at an end."""
    found = scores(frame, CHOICE).reset_index()
    rows = found.loc[found.groupby(CHOICE[:4], sort=False).held_out_nll.idxmin()]
    tried = frame.groupby(["dataset", "method"]).learning_rate.unique()
    ends = [is_at_an_end(row.learning_rate, tried[row.dataset, row.method]) for row in rows.itertuples()]
    return rows.assign(at_an_end=ends)


def recipe(frame: pd.DataFrame) -> tuple[str, float]:
    """Returns the p and the rate that are best for all tasks, without weight decay."""
    ours = frame[(frame.method == OURS) & (frame.weight_decay == 0)]
    found = scores(ours, ["p", "learning_rate", "dataset"]).unstack("dataset")
    p, rate = (found / found.min()).mean(axis=1, skipna=False).idxmin()
    return str(p), float(rate)


def contenders(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns what is judged on test data: the recipe, and each optimizer, and p = infinity, at its best."""
    p, rate = recipe(frame)
    tasks = list(dict.fromkeys(frame.dataset))
    recipes = [dict(zip(CHOICE, (task, OPTIMIZER, OURS, p, rate, 0.0), strict=True)) for task in tasks]
    tuned = best(frame)
    tuned = tuned[(tuned.optimizer != OPTIMIZER) | (tuned.method == OURS)]
    is_best = tuned.index.isin(tuned.groupby(["dataset", "optimizer"], sort=False).held_out_nll.idxmin())
    chosen = tuned[is_best | ((tuned.method == OURS) & (tuned.p == "∞"))]
    named = pd.DataFrame(recipes).assign(name=f"the recipe: {OURS}, p {p}")
    return pd.concat([named, chosen[CHOICE].assign(name=_name)]).sort_values(
        "dataset", key=lambda names: names.map(tasks.index), kind="stable"
    )


def _name(frame: pd.DataFrame) -> pd.Series:
    return frame.method.where(frame.p == "none", frame.method + ", p " + frame.p)


def test_runs(study: Study, frame: pd.DataFrame) -> list[Settings]:
    """Returns the runs that are judged on test data."""
    settings = {tuple(row[CHOICE]): row.setting for _, row in frame.iterrows()}
    chosen = dict.fromkeys(settings[tuple(row[CHOICE])] for _, row in contenders(frame).iterrows())
    return [
        dataclasses.replace(setting, seed=seed, held_out="test")
        for setting in chosen
        for seed in study.test_seeds
    ]


def validation_table(frame: pd.DataFrame) -> str:
    """Returns what each method and p reaches on validation data at its best rate and decay."""
    by_choice = dict(iter(frame.groupby(CHOICE, sort=False)))
    rows = []
    for _, row in best(frame).iterrows():
        same = by_choice[tuple(row[CHOICE])]
        values = {"NLL": mean_std(same.held_out_nll, ".4f"), "top-1, %": mean_std(same.top1, ".2f")}
        rows.append(_told(row) | values | {"seeds": len(same)})
    return table_of(pd.DataFrame(rows))


def _told(row: pd.Series) -> dict[str, str]:
    edge = " (edge)" if row.get("at_an_end", False) else ""
    return {
        "task": row.dataset,
        "optimizer": row.get("name", row.method),
        **({} if "name" in row else {"p": row.p}),
        "learning rate": f"{row.learning_rate:g}{edge}",
        "weight decay": f"{row.weight_decay:g}",
    }


def test_table(frame: pd.DataFrame, tested: pd.DataFrame) -> str:
    """Returns what was chosen reaches on the test data, beside the recipe and Muon."""
    by_choice = dict(iter(tested.groupby(CHOICE, sort=False)))
    rows = []
    for dataset, chosen in contenders(frame).groupby("dataset", sort=False):
        references = {"the recipe": chosen.iloc[0], "Muon": chosen[chosen.optimizer == "muon"].iloc[0]}
        for _, row in chosen.iterrows():
            same = by_choice[tuple(row[CHOICE])]
            values = {"NLL": mean_std(same.held_out_nll, ".4f"), "top-1, %": mean_std(same.top1, ".2f")}
            for name, other in references.items():
                of_other = by_choice[tuple(other[CHOICE])]
                versus = difference(measure_of(str(dataset)), same.shown, of_other.shown)
                values[f"minus {name} (95 %)"] = "" if same is of_other else versus
            rows.append(_told(row) | values)
    return table_of(pd.DataFrame(rows))


def draw(frame: pd.DataFrame) -> Figure:
    """Returns the validation NLL by learning rate: a panel for each task, a line for each optimizer."""
    # Variants and annealed p are in the table: their lines would lie on those of ours.
    plain = (frame.method != OURS) | ~frame.p.str.contains("→")
    named = frame[(frame.weight_decay == 0) & plain & frame.method.isin(DRAWN)].assign(optimizer=_name)
    shown = named.sort_values("method", key=lambda names: names.map(DRAWN.index), kind="stable")
    names = list(dict.fromkeys(shown.optimizer))
    ours = sum(name.startswith(OURS) for name in names)
    colors = [*sns.color_palette("crest", ours), "tab:red", "tab:orange", "tab:purple", "tab:brown"]
    grid = sns.relplot(
        shown,
        kind="line",
        x="learning_rate",
        y="held_out_nll",
        hue="optimizer",
        style="optimizer",
        palette=colors[: len(names)],
        col="dataset",
        col_order=list(dict.fromkeys(frame.dataset)),
        col_wrap=2,
        height=2.8,
        aspect=1.5,
        markers=True,
        dashes=False,
        errorbar="sd",
        err_style="bars",
        facet_kws={"sharey": False},
    )
    for task, axes in grid.axes_dict.items():
        means = scores(shown[shown.dataset == task], ["optimizer", "learning_rate"])
        bottom, top = means.min(), means.quantile(0.8)
        margin = 0.1 * (top - bottom)
        axes.set(
            xscale="log",
            ylim=(bottom - margin, top + margin),
            xlabel="learning rate",
            ylabel="validation NLL",
        )
        axes.set_title(task)
        axes.grid(alpha=0.3)
    grid.legend.set_title(None)
    grid.figure.subplots_adjust(wspace=0.25)
    return grid.figure


def run(quick: bool, folder: Path) -> str:
    """Trains what the folder lacks; writes figures and numbers, and returns the answers."""
    study, runs = QUICK if quick else FULL, ResultsFolder(folder / "runs")
    validated = complete(validation_runs(study), runs)
    frame = final(validated)
    tested = complete(test_runs(study, frame), runs)
    write_figure(folder / "rates.png", draw(frame))
    write_csv(folder / "validation.csv", _means(frame))
    p, rate = recipe(frame)
    environments = (run.environment for run in (*validated, *tested))
    return (
        f"## Validation\n\n{validation_table(frame)}\n\nEach at its best learning rate and weight decay, by "
        "the mean NLL over the seeds (edge: no lower, or no higher, rate was tried).\n\n"
        f"## Test\n\nThe recipe, one choice for all tasks, is p {p} at {rate:g} without weight decay.\n\n"
        f"{test_table(frame, final(tested))}\n\nMean ± standard deviation over {len(study.test_seeds)} other "
        "seeds. All but the recipe are tuned for each task. Intervals are Welch's, of what decides (of "
        "images top-1, of text NLL), not corrected for their number.\n\n"
        f"{measured_with(environments, PACKAGES).replace('Measured', 'Trained')}"
    )


def _means(frame: pd.DataFrame) -> pd.DataFrame:
    groups = frame.groupby(CHOICE, sort=False)
    found = groups[["held_out_nll", "top1"]].agg(lambda values: values.to_numpy().mean()).round(6)
    return found.assign(seeds=groups.size()).reset_index()
