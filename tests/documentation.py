"""The pages of the documentation, and what is in them."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("start", "guides", "reproducing", "reference")  # the others are copies that the build makes.
PAGES = (
    ROOT / "docs" / "index.md",
    *(page for folder in FOLDERS for page in sorted((ROOT / "docs" / folder).glob("*.md"))),
)
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))


def blocks(text, language):
    """Returns what is between fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def anchors(text):
    """Returns what headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def prose(path):
    """Returns what is written in a Markdown file, or in a notebook between the cells of code."""
    text = path.read_text()
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
