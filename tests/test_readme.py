"""What the README shows is what the project does."""

import re
import subprocess

import pytest

import lpoptax
from tests.documentation import ROOT, blocks

README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS, BASH_BLOCKS = blocks(README, "python"), blocks(README, "bash")


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_every_python_block_runs_and_prints_what_it_says(block, capsys):
    exec(compile(block, "documentation", "exec"), {})
    promised = re.findall(r"# prints (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == promised


def test_every_block_of_code_is_run_here_or_by_continuous_integration():
    fences = re.findall(r"^ *```", README, re.MULTILINE)
    assert len(fences) == 2 * (len(PYTHON_BLOCKS) + len(BASH_BLOCKS) + len(blocks(README, "bibtex")))
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
