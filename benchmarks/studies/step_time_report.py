"""The table and the picture of `benchmarks.studies.step_time`."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.reporting.figures import COLORS
from benchmarks.reporting.tables import markdown_table

REFERENCES = ("AdamW", "SGD with momentum")
# What a column of the table is called, and its digits.
COLUMNS = {
    "n": ("n", 0),
    "/ AdamW": ("/ AdamW", 2),
    "/ SGD with momentum": ("/ SGD", 2),
    "/ memory": ("/ memory", 2),
    "bytes moved": ("bytes moved", 1),
    "least bytes": ("least bytes", 1),
    "flops": ("flops", 0),
    "state, bytes": ("state, bytes", 1),
    "compilation, s": ("compile, s", 1),
    "compilation / AdamW": ("compile / AdamW", 2),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table."""
    cells = []
    for row in rows:
        half = (row["upper quartile, ms"] - row["lower quartile, ms"]) / 2
        rest = [
            "" if row[name] is None else f"{row[name]:.{digits}f}" for name, (_, digits) in COLUMNS.items()
        ]
        cells.append([row["step"], f"{row['ms']:.1f} ± {half:.1f}", *rest])
    return markdown_table(["step", "ms", *(heading for heading, _ in COLUMNS.values())], cells)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Returns the times relative to AdamW as bars, each with a mark for a x + y of as many bytes."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    trees = list(dict.fromkeys(row["parameters"] for row in rows))
    for axes, tree in zip(figure.subplots(1, len(trees), sharey=True, squeeze=False)[0], trees, strict=True):
        there = [row for row in rows if row["parameters"] == tree][::-1]
        names = [row["step"] for row in there]
        ratios = [row["/ AdamW"] for row in there]
        colors = [COLORS[0] if name.startswith(("LPSGDM", "STACEY")) else "silver" for name in names]
        unit = next(row["ms"] for row in there if row["step"] == REFERENCES[0])
        spread = [
            [max(row["ms"] - row["lower quartile, ms"], 0) / unit for row in there],
            [max(row["upper quartile, ms"] - row["ms"], 0) / unit for row in there],
        ]
        limit = 1.15 * max(ratio for name, ratio in zip(names, ratios, strict=True) if name != "Muon")
        axes.barh(names, ratios, xerr=spread, color=colors, error_kw={"linewidth": 1})
        floors = [row["/ AdamW"] / row["/ memory"] for row in there]
        axes.plot(floors, names, "|", color="black", markersize=12, label="a x + y, for as many bytes")
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        for name, ratio in zip(names, ratios, strict=True):
            if ratio > limit:
                axes.text(limit, name, f"{ratio:.0f} ", ha="right", va="center")
        axes.set(title=tree, xlabel="time of a step / that of AdamW", xlim=(0, limit))
    axes.legend(loc="lower right", fontsize="small")
    return figure


EXPLANATION = (
    "Median ± half of the interquartile range of n rounds in which all steps take turns; those of more than "
    "a second take part in every tenth. `/ memory` is the time over that of a x + y for as many bytes as a "
    "step has to move: to read parameters, state and gradients, and to write parameters and state. It is no "
    "strict bound, as XLA runs a x + y array by array. Bytes and flops are for each parameter; what is moved "
    "and computed is what the compiler tells."
)
