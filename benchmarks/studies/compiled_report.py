"""The tables and the picture of compiled steps."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.config.optimizers import OPTIMIZERS as TRAINED_WITH
from benchmarks.reporting.programs import COLLECTIVES
from benchmarks.reporting.tables import table_of
from benchmarks.studies.compiled_programs import OPTIMIZERS, chips_of

GROUP = ["chips", "parameters"]
EXPLANATION = (
    "Bytes are read from a chip's memory (HBM) and written to it, for each parameter that the chip has. The "
    "peak is of arguments, gradients among them, of results that take the place of no argument, and of "
    "temporaries. Cycles are those that the compiler estimates for the operations that it schedules: not "
    "those of copies beside them, nor of collectives, and hardly those of transcendental functions. A loop "
    "counts as often as it turns, of a conditional the cheapest branch, but the collectives of all branches. "
    "Collectives are with the bytes that one chip takes or gives, whichever is more. Compilation is in "
    "seconds of a processor, with nothing kept of the programs before."
)


def with_ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows with what is relative to AdamW's for the same chips and parameters."""
    adamw = frame[frame.optimizer == "AdamW"].set_index(GROUP)
    there = pd.MultiIndex.from_frame(frame[GROUP])
    chips = frame.chips.map(chips_of)
    ratios = {
        f"{name} / AdamW": frame[name] / adamw[name].reindex(there).to_numpy()
        for name in ("cycles", "peak, GiB", "compilation, CPU s")
    }
    moved = chips * frame["HBM, bytes"] / frame["parameters of it"]
    return frame.assign(**{"bytes / parameter": moved}, **ratios)


def table(frame: pd.DataFrame) -> str:
    """Returns the rows for one slice and network as a Markdown table."""
    shown = pd.DataFrame(
        {
            "optimizer": frame.optimizer,
            "bytes / parameter": _digits(frame["bytes / parameter"], 1),
            "peak, GiB": _digits(frame["peak, GiB"], 3),
            "temporaries, GiB": _digits(frame["temporaries, GiB"], 3),
            "cycles / AdamW": _digits(frame["cycles / AdamW"], 2),
            "collectives": frame.apply(_collectives, axis=1),
            "compile, s": _digits(frame["compilation, CPU s"], 1),
            "compile / AdamW": _digits(frame["compilation, CPU s / AdamW"], 2),
            "fits": frame.fits,
        }
    )
    return table_of(shown)


def _digits(numbers: pd.Series, digits: int) -> pd.Series:
    return numbers.map(f"{{:.{digits}f}}".format).replace("nan", "")


def _collectives(row: pd.Series) -> str:
    kinds = [kind for kind in COLLECTIVES if row[kind] > 0]
    told = [f"{row[kind]:.0f} {kind} ({_size(row[f'{kind}, bytes'])})" for kind in kinds]
    return ", ".join(told) or ("" if np.isnan(row.cycles) else "none")


def _size(size: float) -> str:
    for unit, bytes_of_it in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_of_it:
            return f"{size / bytes_of_it:.3g} {unit}"
    return f"{size:.0f} B"


def draw(frame: pd.DataFrame) -> Figure:
    """Returns peak memory and cycles relative to AdamW's: a row for each optimizer, a mark for each slice."""
    where = frame.parameters + ", " + frame.chips
    groups = list(dict.fromkeys(where))
    names = [name for name in OPTIMIZERS if (frame.optimizer == name).any()]
    figure = Figure(figsize=(10, 1 + 0.38 * len(names)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    shown = {"peak, GiB / AdamW": "peak memory of a chip", "cycles / AdamW": "estimated cycles"}
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        sns.stripplot(
            frame,
            x=name,
            y="optimizer",
            hue=where,
            order=names,
            hue_order=groups,
            palette=sns.color_palette("colorblind", len(groups)),
            jitter=False,
            dodge=True,
            ax=axes,
            legend=axes is panels[-1],
        )
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axes.grid(axis="y", alpha=0.3)
        axes.set(xscale="log", xlabel=f"{label} / AdamW's", ylabel="")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = panels[-1].get_legend_handles_labels()
    panels[-1].get_legend().remove()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize="small")
    return figure


def training_table(frame: pd.DataFrame) -> str:
    """Returns the rows of training steps as a Markdown table."""
    share = 100 * frame["cycles of the optimizer"] / frame.cycles
    shown = {
        "step of": frame.model + " on " + frame.dataset + ", " + frame.dtype,
        "batch": frame["batch size"],
        "optimizer": [TRAINED_WITH[name].label for name in frame.optimizer],
        "preset of": frame.paper,
        "peak, GiB": _digits(frame["peak, GiB"], 2),
        "cycles": _digits(frame.cycles / 1e6, 1) + " M",
        "of these the optimizer's, %": _digits(share, 1),
        "compile, s": _digits(frame["compilation, CPU s"], 0),
        "fits": frame.fits,
    }
    return table_of(pd.DataFrame(shown))


def page(frame: pd.DataFrame, trainings: pd.DataFrame, cut: str) -> str:
    """Returns a table for each slice and network, one of training steps, and how to read them."""
    tables = [
        f"## {parameters}, {chips}{cut}\n\n{table(there)}"
        for (chips, parameters), there in frame.groupby(GROUP, sort=False)
    ]
    if not trainings.empty:
        tables.append(f"## Training steps on one v5e chip\n\n{training_table(trainings)}")
    return "\n\n".join([*tables, EXPLANATION])
