"""Figures: their colors, parts that several have, and how they are written."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.training.records import ResultsFolder

matplotlib.use("agg")  # figures are written, and no window shows them.
matplotlib.rcParams["svg.hashsalt"] = "lpoptax"  # the same figure gives the same file.

# Okabe and Ito's, which those who confuse red and green can tell apart.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def band(axes: Any, x: Any, mean: np.ndarray, std: np.ndarray, **style: Any) -> None:
    """Draws a mean of positive numbers, and a band of one standard deviation around it."""
    axes.plot(x, mean, **style)
    # A band that reaches zero has no bottom on a logarithmic axis.
    low = np.maximum(mean - std, mean / 3)
    axes.fill_between(x, low, mean + std, color=style["color"], alpha=0.1, linewidth=0)


def contours(
    axes: Any,
    height: Callable[[np.ndarray], np.ndarray],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    levels: Sequence[float] | np.ndarray,
) -> None:
    """Draws where a function of points [..., 2] has these values."""
    grid = np.stack(np.meshgrid(np.linspace(*xlim, 200), np.linspace(*ylim, 200)), axis=-1)
    axes.contour(*np.moveaxis(grid, -1, 0), height(grid), levels=levels, colors="0.85")
    axes.set(xlabel="x", ylabel="y", xlim=xlim, ylim=ylim)


def picture(figure: Figure, ending: str) -> bytes:
    """Returns a picture, without the date."""
    content = io.BytesIO()
    figure.savefig(content, format=ending, dpi=100, metadata={"Date": None})
    plt.close(figure)
    return content.getvalue()


def write_figure(file: Path, figure: Figure) -> None:
    """Writes a picture in 256 colors, as every clone of the repository holds it."""
    content = io.BytesIO()
    full = Image.open(io.BytesIO(picture(figure, "png")))
    full.convert("RGB").quantize(256).save(content, "PNG", optimize=True)
    ResultsFolder(file.parent).write_bytes(file.name, content.getvalue())
