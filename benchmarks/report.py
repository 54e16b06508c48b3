"""Turns the results of the main job into its table and its picture."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.recording import FolderError, ResultsFolder

Results = dict[str, Any]


COLUMNS = ("optimizer", "p", "learning rate", "weight decay", "train NLL", "test top-1, %", "s / epoch")


def show(results: Results, console: Console) -> None:
    """Prints the table."""
    # Without a box the rows fit into 80 columns.
    shown = Table(*(column.replace(" ", "\n", 1) for column in COLUMNS), box=None, padding=(0, 1, 0, 0))
    for row in _rows(results):
        shown.add_row(*row)
    if results["runs"]:
        console.print(shown)
    console.print(_explanation(results))


def write(folder: ResultsFolder) -> list[str]:
    """Writes `table.md` and, if a run has finished, `curves.png`; returns the names."""
    folder.write_text("table.md", table(folder.results))
    if not folder.results["runs"]:
        return ["table.md"]
    try:
        curves(folder.results).savefig(folder.path / "curves.png", dpi=100)
    except OSError as error:
        raise FolderError.of(folder.path, error) from error
    return ["table.md", "curves.png"]


def table(results: Results) -> str:
    """Returns the table as Markdown: a row for each optimizer, then how to read it."""
    lines: list[tuple[str, ...]] = [COLUMNS, ("---",) * len(COLUMNS), *_rows(results)]
    rows = ["| " + " | ".join(cells) + " |" for cells in lines if results["runs"]]
    return "\n".join([*rows, "", _explanation(results), ""])


def _rows(results: Results) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, described in results["settings"]["optimizers"].items():
        runs = _runs(results, name)
        if not runs:
            continue
        seconds = [epoch["seconds"] for run in runs for epoch in run]
        rows.append(
            (
                described["label"],
                described["p"],
                f"{described['learning_rate']:g}",
                f"{described['weight_decay']:g}",
                _mean_std([run[-1]["train_nll"] for run in runs], ".1e"),
                _mean_std([100 * run[-1]["held_out_top1"] for run in runs], ".2f"),
                f"{np.median(seconds):.2f}",  # some epochs include compilation,
            )
        )
    return rows


def _explanation(results: Results) -> str:
    settings, environment = results["settings"], results["environment"]
    versions = ", ".join(
        f"{package} {environment[package]}" for package in ("python", "jax", "flax", "optax")
    )
    return (
        f"{_seeds(results)}, after {settings['epochs']} epochs of "
        f"{settings['model']} on {settings['dataset']} with batches of {settings['batch_size']}. "
        f"{_verdict(results)}{_unfinished(results)} Measured with {versions} on {environment['machine']}."
    )


def _verdict(results: Results) -> str:
    """Returns who came first, and from whom that cannot be told apart."""
    labels = {name: described["label"] for name, described in results["settings"]["optimizers"].items()}
    top1 = {name: [100 * run[-1]["held_out_top1"] for run in _runs(results, name)] for name in labels}
    top1 = {name: values for name, values in top1.items() if values}
    if not top1:
        return "No run has finished."
    best = max(top1, key=lambda name: float(np.mean(top1[name])))
    verdict = f"The highest test top-1 is that of {labels[best]}."
    if min(map(len, top1.values())) < 2:
        return f"{verdict} From single runs no difference can be told from noise."
    tied = [labels[name] for name in top1 if name != best and not _differs(top1[best], top1[name])]
    if tied:
        verdict += f" Within noise of it (95 % Welch interval): {', '.join(tied)}."
    return verdict


def _unfinished(results: Results) -> str:
    """Says how far a run was when it was interrupted, if one was."""
    sentences = [
        f" {results['settings']['optimizers'][run['optimizer']]['label']} with seed {run['seed']} was at "
        f"{100 * run['epochs'][-1]['held_out_top1']:.2f} % test top-1 after epoch {len(run['epochs'])}."
        for run in results["unfinished"]
        if run["epochs"]
    ]
    return "".join(sentences)


def _differs(a: list[float], b: list[float]) -> bool:
    """Says whether the 95 % Welch interval of the difference of means leaves out zero."""
    if np.ptp(a) == np.ptp(b) == 0:
        return a[0] != b[0]
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return bool(interval.low > 0 or interval.high < 0)


def curves(results: Results) -> Figure:
    """Returns the picture: train NLL and test error by epoch, and p under them."""
    settings = results["settings"]
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    by_p: dict[tuple[float, ...], list[dict[str, str]]] = {}
    for index, (name, described) in enumerate(settings["optimizers"].items()):
        runs = _runs(results, name)
        if not runs:
            continue
        style = {"color": f"C{index}", "label": described["label"]}
        _band(axes[0], [[epoch["train_nll"] for epoch in run] for run in runs], style)
        _band(axes[1], [[100 * (1 - epoch["held_out_top1"]) for epoch in run] for run in runs], style)
        if described["p_by_epoch"]:
            by_p.setdefault(tuple(described["p_by_epoch"]), []).append(style)
    for p, styles in by_p.items():
        label = ", ".join(style["label"] for style in styles)
        # What several share is grey, as none of them is above.
        color = styles[0]["color"] if len(styles) == 1 else "grey"
        axes[2].plot(range(1, len(p) + 1), p, "o-", markersize=3, color=color, label=label)
    axes[0].set(ylabel="train NLL", yscale="log")
    axes[1].set(ylabel="test error, %", yscale="log")
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[2].set(ylabel="p", xlabel="epoch")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    title = f"{settings['model']} on {settings['dataset']}. {_seeds(results)}"
    figure.suptitle(title, fontsize="medium")
    axes[0].legend(ncols=2, fontsize="small")
    if by_p:
        axes[2].legend(fontsize="small")
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def _band(axis: Any, values: list[list[float]], style: dict[str, str]) -> None:
    mean = np.mean(values, axis=0)
    std = np.std(values, axis=0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
    epochs = range(1, len(mean) + 1)
    axis.plot(epochs, mean, "o-", markersize=3, **style)
    # A band that reaches zero has no bottom on a logarithmic axis.
    axis.fill_between(epochs, np.maximum(mean - std, mean / 3), mean + std, color=style["color"], alpha=0.1)


def _runs(results: Results, name: str) -> list[list[dict[str, float]]]:
    return [run["epochs"] for run in results["runs"] if run["optimizer"] == name]


def _mean_std(values: list[float], spec: str) -> str:
    spread = f" ± {np.std(values, ddof=1):{spec}}" if len(values) > 1 else ""
    return f"{np.mean(values):{spec}}{spread}"


def _seeds(results: Results) -> str:
    """Says over how many seeds the figures are means, and whether some are missing."""
    seeds = results["settings"]["seeds"]
    text = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    finished = {len(_runs(results, name)) for name in results["settings"]["optimizers"]}
    return text if finished == {seeds} else f"{text}, of which not all have finished"
