"""Figures: their colors, and how they are written."""

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from benchmarks.training.records import ResultsFolder

# Okabe and Ito's, which those who confuse red and green can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def write_figure(file: Path, figure: Figure) -> None:
    """Writes a picture."""
    ResultsFolder(file.parent).write_bytes(file.name, png(figure))


def png(figure: Figure) -> bytes:
    """Returns a picture in 256 colors, as every clone of the repository holds it."""
    full, image = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=100)
    Image.open(full).convert("RGB").quantize(256).save(image, "PNG", optimize=True)
    return image.getvalue()
