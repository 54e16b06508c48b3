"""What the README and the examples show is what the project does."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import lpoptax

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = (ROOT / "docs" / "examples.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def fences(text):
    return re.findall(r"^ *```", text, re.MULTILINE)


def sections(text):
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


PYTHON_BLOCKS = blocks(README, "python") + blocks(EXAMPLES, "python")
BASH_BLOCKS = blocks(README, "bash")
NAMES = [f"README {index}" for index in range(len(blocks(README, "python")))] + sections(EXAMPLES)


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=NAMES)
def test_every_python_block_runs_and_prints_what_it_says(block, capsys):
    exec(compile(block, "documentation", "exec"), {})
    promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def test_every_block_is_run_here_or_by_continuous_integration():
    assert len(fences(README + EXAMPLES)) == 2 * (len(PYTHON_BLOCKS) + len(BASH_BLOCKS))
    # .ci/run takes the shell blocks out of the README with this expression, and runs each line.
    expression = "/^```bash$/,/^```$/{/^```/d;p}"
    assert f"sed -n '{expression}' README.md" in (ROOT / ".ci" / "run").read_text()
    commands = subprocess.run(
        ["sed", "-n", expression, "README.md"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert commands == "".join(BASH_BLOCKS).splitlines()
    assert "benchmarks compare" in commands[0]
    assert "pytest" in commands[1]


def test_every_call_in_the_table_of_methods_exists():
    called = set(re.findall(r"`(?:\w+ = )?(?:lpoptax\.)?(\w+)\(", README)) - {"chain"}
    assert called
    for name in called:
        assert hasattr(lpoptax, name), name


def anchors(text):
    """Returns what headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def prose(path):
    """Returns what is written in a Markdown file, or in a notebook between the cells of code."""
    text = (ROOT / path).read_text()
    if not path.endswith(".ipynb"):
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


NOTEBOOKS = [f"notebooks/{file.name}" for file in (ROOT / "notebooks").glob("*.ipynb")]


@pytest.mark.parametrize("path", ["README.md", "docs/examples.md", "CONTRIBUTING.md", *sorted(NOTEBOOKS)])
def test_every_relative_link_leads_somewhere(path):
    targets = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", prose(path))
    assert targets or path == "CONTRIBUTING.md"
    for target, anchor in targets:
        file = (ROOT / path).parent / target if target else ROOT / path
        assert file.exists(), target
        if anchor:
            assert anchor[1:] in anchors(file.read_text()), anchor
