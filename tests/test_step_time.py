"""Steps move few bytes, and the benchmark of them counts and compares what it should."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import lpoptax
from benchmarks.cli import main
from benchmarks.studies import step_time

README = Path(__file__).parents[1] / "README.md"
RESULTS = README.parent / "benchmarks" / "results" / "step_time"
SHAPES = {"a": jnp.zeros(1 << 14), "b": jnp.zeros((64, 256))}
P = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=1000)
RATE = optax.cosine_decay_schedule(0.1, 1000)


@pytest.fixture(autouse=True)
def _compile_once(monkeypatch):
    monkeypatch.setattr(step_time, "COMPILATIONS", 1)


@pytest.mark.parametrize(
    ("optimizer", "most"),
    [
        # One output for each fusion: five arrays to read and write are six.
        (lpoptax.lpsgdm(RATE, P, weight_decay=0.1), 6.0),
        (lpoptax.lpsgdm(0.1, 3.0), 6.0),
        (lpoptax.stacey(0.1, 3.0, weight_decay=0.1), 12.0),
        (lpoptax.stacey(RATE, 3.0, mirror_p=3.0), 12.0),
        (lpoptax.stacey(0.1, 2.0, mirror_p=P), 12.0),
    ],
)
def test_a_step_moves_no_copy_of_its_state(optimizer, most):
    step = step_time.compiled(optimizer, SHAPES)
    # Counters and schedules are scalars.
    assert step.moved / 4 == pytest.approx(most, abs=0.01)


def test_what_has_to_be_moved_is_read_and_written_once():
    sgd, lpsgdm, adamw, stacey = (
        step_time.compiled(optimizer, SHAPES)
        for optimizer in (
            optax.sgd(0.1, momentum=0.9),
            lpoptax.lpsgdm(0.1, P, accumulator_dtype=jnp.bfloat16),
            optax.adamw(0.1),
            lpoptax.stacey(0.1, 3.0),
        )
    )
    assert sgd.least == 20
    assert (lpsgdm.least, lpsgdm.state) == pytest.approx((16, 2), abs=0.01)
    assert (adamw.least, adamw.state) == pytest.approx((28, 8), abs=0.01)
    assert (stacey.least, stacey.state) == pytest.approx((28, 8), abs=0.01)
    assert step_time.axpy(SHAPES).least == 12


def test_ratios_are_of_medians_and_the_floor_of_bytes():
    def timed(milliseconds, least):
        return step_time.Step(lambda: None, least, 0.0, compilation=2.0), [1e-3 * t for t in milliseconds]

    measured = {
        "SGD with momentum": timed([5, 4, 9], 20),
        "AdamW": timed([10, 8, 12], 28),
        "a x + y": timed([3, 3, 3], 12),
        "PyTorch": (step_time.Step(lambda: None, 28, 8.0), [0.02, 0.02, 0.02]),
    }
    rows = {row["step"]: row for row in step_time.rows_of("any", measured)}
    assert rows["PyTorch"]["/ AdamW"] == pytest.approx(2)
    assert rows["PyTorch"]["/ SGD with momentum"] == pytest.approx(4)
    assert rows["PyTorch"]["/ memory"] == pytest.approx(20 / 7)  # 28 bytes at 12 in 3 ms
    assert rows["PyTorch"]["bytes moved"] is None
    text = step_time.table(list(rows.values()))
    assert "| AdamW | 10.0 ± 2.0 | 3 | 1.00 | 2.00 | 1.43 |" in text


def test_the_trees_are_those_of_the_networks():
    for name, leaves, size in (("ResNet-50", 161, 25_557_032), ("Llama, 100 M", 111, 99_989_120)):
        shapes = step_time.TREES[name]()
        assert len(jax.tree.leaves(shapes)) == leaves
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size


def test_quick_mode_writes_the_files_that_are_committed_of_the_full_one(tmp_path, monkeypatch):
    few = {name: step_time.OPTIMIZERS[name] for name in (*step_time.REFERENCES, "LPSGDM, p = 3")}
    monkeypatch.setattr(step_time, "OPTIMIZERS", few)  # each compiles for a second.
    assert main(["step_time", "--quick", "--output", str(tmp_path)]) == 0
    assert set(os.listdir(tmp_path)) == set(os.listdir(RESULTS))
    assert "python -m benchmarks step_time --output benchmarks/results/step_time" in step_time.__doc__
    quick, full = ((folder / "table.md").read_text() for folder in (tmp_path, RESULTS))
    assert "Measured with --quick" in quick
    assert "Measured with --quick" not in full


def cells(text):
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines())
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_the_readme_shows_what_was_measured():
    after = README.read_text().split("## What a step costs\n")[1]
    shown = cells(re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)[0])
    measured = cells((RESULTS / "table.md").read_text().split("## ")[1].split("\n\n")[1])
    assert len(shown) > 5
    for step, row in shown.items():
        assert row.items() <= measured[step].items()
