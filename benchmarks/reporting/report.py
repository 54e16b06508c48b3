"""Turns records of runs into the papers' tables and curves."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.config.labels import TOLD, columns, duration, label, method, names, p_text, varying
from benchmarks.config.settings import Settings, presets
from benchmarks.data.registry import is_text, kind
from benchmarks.reporting.comparison import Workload, seeds, verdict, workloads
from benchmarks.reporting.curves import curves
from benchmarks.reporting.figures import picture
from benchmarks.reporting.statistics import PERPLEXITY, TRAIN_NLL, frame_of, mean_std
from benchmarks.reporting.tables import csv_text, table_of
from benchmarks.training.records import ResultsFolder, Run, measured_with

PUBLISHED = Path(__file__).with_name("published.csv")
SHOWN = ("learning_rate", "weight_decay")
SIZES = {"cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "imagenet2012": (1_281_167, 50_000)}
VERBS = {"test": "test", "validation": "validate"}
PACKAGES = ("python", "jax", "flax", "optax")


def show(runs: Sequence[Run], console: Console, at: Sequence[int] | None = None) -> None:
    """Prints the tables."""
    for workload in workloads(runs):
        if workload.results:
            table = tabulate(workload, at)
            # Without a box the rows fit into 80 columns.
            headings = (heading.replace(" ", "\n", 1) for heading in table)
            shown = Table(*headings, box=None, padding=(0, 1, 0, 0))
            for row in table.to_numpy():
                shown.add_row(*row)
            console.print(shown)
        console.print(explain(workload))


def markdown(runs: Sequence[Run], at: Sequence[int] | None = None) -> str:
    """Returns the tables as Markdown: a row for each setting, then how to read it."""
    parts = []
    for workload in workloads(runs):
        table = f"{table_of(tabulate(workload, at))}\n" if workload.results else ""
        parts.append(f"{table}\n{explain(workload)}")
    return "\n\n".join(parts) + "\n"


def write(folder: ResultsFolder, runs: Sequence[Run], at: Sequence[int] | None = None) -> list[str]:
    """Writes the tables and, where a run has finished, the curves; returns the names."""
    files = {"table.md": markdown(runs, at).encode()}
    finished = [workload for workload in workloads(runs) if workload.results]
    for workload in finished:
        suffix = "".join(f"-{value}" for value in workload.task) if len(finished) > 1 else ""
        files[f"table{suffix}.csv"] = csv_text(tabulate(workload, at)).encode()
        title = f"{workload.first.model} on {workload.first.dataset}. {seeds(workload)}"
        figure = curves(workload.frame, names(workload.settings), title)
        files |= {f"curves{suffix}.{ending}": picture(figure, ending) for ending in ("png", "svg")}
    if len(finished) > 1:  # the names of one alone would now mislead.
        folder.remove("table.csv", "curves.png", "curves.svg")
    for name, content in files.items():
        folder.write_bytes(name, content)
    return list(files)


def tabulate(workload: Workload, at: Sequence[int] | None = None) -> pd.DataFrame:
    """Returns a row for each setting of which a run has finished."""
    settings, first = list(workload.results), workload.first
    more = varying(workload.settings, but=(*TOLD, *SHOWN))
    table = [
        pd.Series(map(method, settings), name="optimizer"),
        pd.Series(map(p_text, settings), name="p"),
        pd.Series([f"{one.learning_rate:g}" for one in settings], name="learning rate"),
        pd.Series([f"{one.weight_decay:g}" for one in settings], name="weight decay"),
        columns(settings, more),
    ]
    epochs = [epoch for epoch in at or [first.epochs] if epoch <= first.epochs]
    for epoch in epochs:
        suffix = f", epoch {epoch}" if len(epochs) > 1 else ""
        table += [pd.Series(cells, name=name + suffix) for name, cells in _measured(workload, epoch)]
    if workload.has_seeds:
        table.append(pd.Series(map(workload.versus_best, settings), name="minus the best (95 %)"))
    return pd.concat(table, axis=1)


def _measured(workload: Workload, epoch: int) -> Iterator[tuple[str, list[str]]]:
    """Gives the columns of an epoch: what was measured, and what the papers publish."""
    groups = workload.frame[workload.frame.epoch == epoch].groupby("setting", sort=False)
    published = [_published(setting, workload.examples, epoch) for setting in workload.results]
    for measure in (TRAIN_NLL, workload.measure, *([PERPLEXITY] if is_text(workload.first.dataset) else [])):
        of = "" if measure is TRAIN_NLL else f"{workload.first.held_out} "
        cells = [mean_std(values, measure.spec) for _, values in groups[measure.key]]
        yield f"{of}{measure.name}{measure.unit.replace(' ', ', ')}", cells
        if any(published):
            yield "published", [cells.get(measure.key, "") for cells in published]


def _published(setting: Settings, examples: dict[str, int], epoch: int) -> dict[str, str]:
    """Returns the cells of the papers that have this one, each with its paper.

    There are none for a part of the data, for what stands in for it, or for other settings.
    """
    if setting.held_out != "test" or tuple(examples.values()) != SIZES.get(setting.dataset):
        return {}
    task = (setting.dataset, setting.model, setting.optimizer)
    named = dict(zip(("dataset", "model", "optimizer", "epoch"), (*task, str(epoch)), strict=True))
    cells: dict[str, list[str]] = {}
    for row in pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False).to_dict("records"):
        of_paper = (preset.items() <= vars(setting).items() for preset in presets(*task, row["paper"]))
        if named.items() <= row.items() and any(of_paper):
            for key, column in (("train_nll", "train_nll"), ("top1", "test_top1")):
                spread = f" ± {row[f'{column}_std']}" if row[f"{column}_std"] else ""
                cells.setdefault(key, []).append(f"{row[column]}{spread} ({row['paper']})")
    return {key: ", ".join(values) for key, values in cells.items()}


def explain(workload: Workload) -> str:
    """Returns how to read the table, and what it shows."""
    first, examples = workload.first, workload.examples
    to_train_on = "an epoch" if is_text(first.dataset) else "to train on"
    return (
        f"{seeds(workload)}, after {duration(first)} of {first.model} on {first.dataset} "
        f"({examples['train']:,} {kind(first.dataset)} {to_train_on}, {examples['held_out']:,} to "
        f"{VERBS[first.held_out]}) with batches of {first.batch_size}. {verdict(workload)}"
        f"{_unfinished(workload)} {measured_with((run.environment for run in workload.runs), PACKAGES)}"
    )


def _unfinished(workload: Workload) -> str:
    """Says how far the runs are that have not finished."""
    measure, text = workload.measure, ""
    for run in workload.runs:
        if run.done > 0 and not run.finished:
            value = frame_of([run])[measure.key].iloc[-1]
            text += f" {label(run.settings)} with seed {run.settings.seed} was at {value:{measure.spec}}"
            text += f"{measure.unit} {run.settings.held_out} {measure.name} after epoch {run.done}."
    return text
