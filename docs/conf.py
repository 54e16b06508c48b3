"""Builds the documentation: sphinx-build -W --keep-going -b html docs docs/_build/html."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

import lpoptax

ROOT = Path(__file__).parents[1]

project, author, version = "lpoptax", "lpoptax developers", lpoptax.__version__
project_copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without a network.
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

nitpicky = True
nitpick_ignore = [("py:exc", "Nothing.")]  # as the docstring of what raises nothing says.
nitpick_ignore_regex = [("py:.*", r"(jax|optax)\..*")]  # their pages are not at hand without a network.

autodoc_typehints = "none"  # an alias such as ArrayLike would be spelled out, over many lines.
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_use_rtype = False
python_maximum_signature_line_length = 88

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # tests/test_notebooks.py runs the notebooks, and checks what is saved.

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = "lpoptax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"

# What lies outside of docs/ and is part of the site, with where links on pages find it.
OUTSIDE = {"notebooks": "notebooks", "benchmarks/results": "results"}


def bring(app: Sphinx, config: Config) -> None:
    """Copies the notebooks and the results into docs/, where Sphinx looks for pages."""
    for source, target in OUTSIDE.items():
        shutil.copytree(ROOT / source, app.srcdir / target, dirs_exist_ok=True)


def follow(app: Sphinx, docname: str, source: list[str]) -> None:
    """Makes links that are right in the repository right in the site."""
    for before, after in OUTSIDE.items():
        source[0] = source[0].replace(f"../../{before}/", f"../{after}/")
    if docname.startswith("notebooks/"):
        source[0] = source[0].replace("](../docs/", "](../")
    else:
        parts = re.split(r"(^```(?:python|shell)$.*?^```$)", source[0], flags=re.MULTILINE | re.DOTALL)
        source[0] = "".join(part if part.startswith("```") else bind(part) for part in parts)
    if docname.startswith("results/"):
        title = docname.removeprefix("results/").removesuffix("/table")
        source[0] = f"---\norphan: true\n---\n\n# Figures: {title}\n\n{source[0]}"


def bind(text: str) -> str:
    """Keeps a result, and p with its value, on one line, also in narrow cells of tables."""
    space = "\N{NO-BREAK SPACE}"
    text = re.sub(r"(?<=[\d∞]) (±|to|→) (?=[-+\u2212\d])", rf"{space}\1{space}", text)
    text = re.sub(r"\bp (=|≥) (?=[\d∞])", rf"p{space}\1{space}", text)
    return re.sub(r"\bp (?=[\d∞])", f"p{space}", text)


def setup(app: Sphinx) -> None:
    """Connects the functions above."""
    app.connect("config-inited", bring)
    app.connect("source-read", follow)
