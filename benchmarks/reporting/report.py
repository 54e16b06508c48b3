"""Turns records of runs into the papers' tables and curves."""

import csv
import dataclasses
import io
import itertools
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from benchmarks.config.labels import TOLD, cells, duration, label, method, names, p_text, varying
from benchmarks.config.settings import Settings, presets
from benchmarks.data.registry import is_text, kind
from benchmarks.reporting.comparison import (
    WORKLOAD,
    Workload,
    best_of,
    interval,
    seeds,
    verdict,
    workloads,
)
from benchmarks.reporting.curves import curves
from benchmarks.reporting.statistics import NLL, PERPLEXITY, TOP1, TRAIN_NLL, Measure, mean_std
from benchmarks.reporting.tables import csv_text, markdown_table
from benchmarks.training.records import ResultsFolder, Run, measured_with

PUBLISHED = Path(__file__).with_name("published.csv")
SHOWN = ("learning_rate", "weight_decay")
SIZES = {
    "cifar10": {"train": 50_000, "held_out": 10_000},
    "cifar100": {"train": 50_000, "held_out": 10_000},
    "imagenet2012": {"train": 1_281_167, "held_out": 50_000},
}
VERBS = {"test": "test", "validation": "validate"}
PACKAGES = ("python", "jax", "flax", "optax")


def show(runs: list[Run], console: Console, at: list[int] | None = None) -> None:
    """Prints the tables."""
    for workload in workloads(runs):
        columns, rows = tabulate(workload, at)
        # Without a box the rows fit into 80 columns.
        shown = Table(*(column.replace(" ", "\n", 1) for column in columns), box=None, padding=(0, 1, 0, 0))
        for row in rows:
            shown.add_row(*row)
        if rows:
            console.print(shown)
        console.print(explain(workload))


def write(folder: ResultsFolder, runs: list[Run], at: list[int] | None = None) -> list[str]:
    """Writes the tables and, where a run has finished, the curves; returns the names."""
    folder.write_text("table.md", markdown(runs, at))
    written = ["table.md"]
    all_workloads = [workload for workload in workloads(runs) if workload.runs]
    if len(all_workloads) > 1:  # the names of one alone would now mislead.
        folder.remove("table.csv", "curves.png", "curves.svg")
    for workload, suffix in zip(all_workloads, _suffixes(all_workloads), strict=True):
        first = workload.first
        folder.write_text(f"table{suffix}.csv", csv_text(*tabulate(workload, at)))
        figure = curves(
            workload.runs,
            names(workload.settings),
            f"{first.model} on {first.dataset}. {seeds(workload)}",
            likelihood=is_text(first.dataset),
        )
        written.append(f"table{suffix}.csv")
        for ending in ("png", "svg"):
            picture = io.BytesIO()
            # Without the date the same records give the same file.
            metadata = {"Date": None} if ending == "svg" else None
            with matplotlib.rc_context({"svg.hashsalt": "lpoptax"}):
                figure.savefig(picture, format=ending, dpi=100, metadata=metadata)
            folder.write_bytes(f"curves{suffix}.{ending}", picture.getvalue())
            written.append(f"curves{suffix}.{ending}")
    return written


def _suffixes(all_workloads: list[Workload]) -> list[str]:
    """Returns what the names of files end in, so that no two are the same."""
    if len(all_workloads) < 2:
        return [""] * len(all_workloads)
    values = [
        [*(str(getattr(workload.first, name)) for name in WORKLOAD), str(workload.examples["train"])]
        for workload in all_workloads
    ]
    short = [*(name in ("dataset", "model", "epochs") for name in WORKLOAD), False]
    varies = [len(set(column)) > 1 for column in zip(*values, strict=True)]
    shown = [always or differs for always, differs in zip(short, varies, strict=True)]
    return ["".join(f"-{value}" for value in itertools.compress(row, shown)) for row in values]


def markdown(runs: list[Run], at: list[int] | None = None) -> str:
    """Returns the tables as Markdown: a row for each setting, then how to read it."""
    parts = []
    for workload in workloads(runs):
        columns, rows = tabulate(workload, at)
        table = f"{markdown_table(columns, rows)}\n" if rows else ""
        parts.append(f"{table}\n{explain(workload)}")
    return "\n\n".join(parts) + "\n"


def tabulate(workload: Workload, at: list[int] | None = None) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns, and a row for each setting of which a run has finished."""
    epochs = [epoch for epoch in at or [workload.first.epochs] if epoch <= workload.first.epochs]
    more = [name for name in varying(workload.settings) if name not in (*TOLD, *SHOWN)]
    best = best_of(workload)
    columns = ["optimizer", "p", "learning rate", "weight decay", *(name.replace("_", " ") for name in more)]
    rows = [
        [
            method(setting),
            p_text(setting),
            *(f"{getattr(setting, name):g}" for name in SHOWN),
            *cells(setting, more),
        ]
        for setting in workload.runs
    ]
    for epoch in epochs:
        suffix = f", epoch {epoch}" if len(epochs) > 1 else ""
        published = [_published(setting, workload.examples, epoch) for setting in workload.runs]
        for title, measure in _figures(workload).items():
            columns.append(title + suffix)
            for row, runs in zip(rows, workload.runs.values(), strict=True):
                row.append(mean_std([measure.at(run.epochs[epoch - 1]) for run in runs], measure.spec))
            if any(published):
                columns.append(f"published{suffix}")
                for row, values in zip(rows, published, strict=True):
                    row.append(values.get(measure.key, ""))
    if best is not None:
        columns.append("minus the best (95 %)")
        for row, setting in zip(rows, workload.runs, strict=True):
            compared = setting != best and len(workload.runs[setting]) > 1
            other = "best" if setting == best else "one seed"
            row.append(interval(workload, setting, best) if compared else other)
    return columns, rows


def _figures(workload: Workload) -> dict[str, Measure]:
    """Returns what is tabulated of each epoch, by the title of its column."""
    held_out = [NLL, PERPLEXITY] if is_text(workload.first.dataset) else [TOP1]
    titles = {
        f"{workload.first.held_out} {measure.name}{measure.unit.replace(' ', ', ')}": measure
        for measure in held_out
    }
    return {TRAIN_NLL.name: TRAIN_NLL, **titles}


def _published(setting: Settings, examples: dict[str, int], epoch: int) -> dict[str, str]:
    """Returns the cells of the papers that have this one, each with its paper.

    There are none for a part of the data, for what stands in for it, or for other settings.
    """
    if setting.held_out != "test" or examples != SIZES.get(setting.dataset):
        return {}
    names = {name: str(getattr(setting, name)) for name in ("dataset", "model", "optimizer")}
    cells: dict[str, list[str]] = {}
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if {**names, "epoch": str(epoch)}.items() <= row.items() and _is_of(setting, row["paper"]):
                for key, column in (("train_nll", "train_nll"), ("held_out_top1", "test_top1")):
                    spread = f" ± {row[column + '_std']}" if row[column + "_std"] else ""
                    cells.setdefault(key, []).append(f"{row[column]}{spread} ({row['paper']})")
    return {key: ", ".join(values) for key, values in cells.items()}


def _is_of(setting: Settings, paper: str) -> bool:
    """Says whether these are the settings that the paper names."""
    rows = presets(setting.dataset, setting.model, setting.optimizer, paper)
    return any(row.items() <= dataclasses.asdict(setting).items() for row in rows)


def explain(workload: Workload) -> str:
    """Returns how to read the table, and what it shows."""
    first = workload.first
    to_train_on = "an epoch" if is_text(first.dataset) else "to train on"
    return (
        f"{seeds(workload)}, after {duration(first)} of {first.model} on {first.dataset} "
        f"({workload.examples['train']:,} {kind(first.dataset)} {to_train_on}, "
        f"{workload.examples['held_out']:,} to "
        f"{VERBS[first.held_out]}) with batches of {first.batch_size}. "
        f"{verdict(workload)}{_unfinished(workload)} {_measured_with(workload)}"
    )


def _measured_with(workload: Workload) -> str:
    runs = [run for runs in workload.runs.values() for run in runs] + workload.unfinished
    return measured_with((run.environment for run in runs), PACKAGES)


def _unfinished(workload: Workload) -> str:
    """Says how far the runs are that have not finished."""
    measure = workload.measure
    return "".join(
        f" {label(run.settings)} with seed {run.settings.seed} was at "
        f"{measure.at(run.epochs[-1]):{measure.spec}}{measure.unit} "
        f"{run.settings.held_out} {measure.name} after epoch {len(run.epochs)}."
        for run in workload.unfinished
        if run.epochs
    )
