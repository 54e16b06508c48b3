"""The pages of the documentation: their code runs, their links lead somewhere, and nothing is left out."""

import dataclasses
import re

import pytest

import lpoptax
from benchmarks import cli
from benchmarks.config.optimizers import OPTIMIZERS
from benchmarks.config.settings import ANNOTATIONS, option
from benchmarks.data import registry
from benchmarks.models.registry import MODELS
from lpoptax import curvature
from tests.documentation import NOTEBOOKS, PAGES, ROOT, anchors, blocks, prose

PUBLIC = {"lpoptax": lpoptax.__all__, "lpoptax.curvature": curvature.__all__}
COMMAND_LINE = (ROOT / "docs" / "reference" / "command_line.md").read_text()
EXAMPLES = {
    f"{page.stem} {number}": block
    for page in PAGES
    for number, block in enumerate(blocks(page.read_text(), "python"), 1)
}


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("block", EXAMPLES.values(), ids=EXAMPLES)
def test_every_python_block_runs_and_prints_what_it_says(block, capsys):
    exec(compile(block, "documentation", "exec"), {})
    promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_has_a_language_and_none_hides_python_that_is_not_run(page):
    opened = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)[::2]
    known = r"python|shell|bibtex|\{(toctree|include|eval-rst|card-footer)\}.*"
    assert [language for language in opened if not re.fullmatch(known, language)] == []
    assert opened.count("python") == len(blocks(page.read_text(), "python"))


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *NOTEBOOKS, *PAGES], ids=name)
def test_every_relative_link_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", prose(page)):
        module, _, symbol = anchor.rpartition(".")
        if module:  # Sphinx finds the page of a symbol.
            assert symbol in PUBLIC[module], anchor
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(prose(file)), anchor


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name)
def test_every_figure_has_a_text_for_those_who_do_not_see_it(page):
    text = page.read_text()
    assert "![](" not in text
    assert len(re.findall(r"<img ", text)) == len(re.findall(r'<img [^>]*alt="[^"]+', text))
    assert text.count(":img-top:") == text.count(":img-alt:")


def test_every_public_symbol_has_a_page():
    listed, module = {name: [] for name in PUBLIC}, None
    for line in "".join(
        blocks((ROOT / "docs" / "reference" / "index.md").read_text(), r"\{eval-rst\}")
    ).splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            listed[module].append(line.strip())
    assert {name: sorted(symbols) for name, symbols in listed.items()} == {
        name: sorted(symbols) for name, symbols in PUBLIC.items()
    }


@pytest.mark.parametrize("command", [*cli.JOBS, *cli.STUDIES])
def test_every_command_is_on_the_page_of_the_command_line_with_what_it_does(command):
    about = cli.JOBS[command].__doc__.splitlines()[0] if command in cli.JOBS else cli.STUDIES[command][0]
    assert f"| `{command}` | {about} |" in COMMAND_LINE


def test_every_option_and_every_name_is_on_the_page_of_the_command_line():
    options = {field.name for job in cli.JOBS.values() for field in dataclasses.fields(job)} - {
        "settings",
        "folder",
    }
    for field in options:
        assert re.search(rf"^\| `{option(field)}[ `]", COMMAND_LINE, re.MULTILINE), field
    for field, annotation in ANNOTATIONS.items():
        if hasattr(annotation, "__metadata__"):
            *allowed, text = annotation.__metadata__
            row = " | ".join([f"| `{option(field)}`", text, *(one.text for one in allowed)])
            assert row in COMMAND_LINE, field
    # tests/checkpointed_run.py adds a model to those that there are.
    for known in (*OPTIMIZERS, *(MODELS.keys() - {"perceptron"}), *registry.NAMES):
        assert f"`{known}`" in COMMAND_LINE.split("## Names")[1], known


def test_continuous_integration_builds_the_site_as_contributors_are_told_to():
    command = "sphinx-build -W --keep-going -b html docs docs/_build/html"
    assert command in (ROOT / "CONTRIBUTING.md").read_text()
    assert f".venv-docs/bin/{command}" in (ROOT / ".ci" / "run").read_text()
