"""Steps move few bytes, and the benchmark of them counts and compares what it should."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lpoptax
from benchmarks.cli import main
from benchmarks.studies import step_time

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "step_time"
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
    _, known = step_time.compiled(optimizer, SHAPES)
    # Counters and schedules are scalars.
    assert known["bytes moved"] / 4 == pytest.approx(most, abs=0.01)


def test_unit_rms_needs_room_for_one_array_of_each_parameter():
    _, known = step_time.compiled(lpoptax.lpsgdm(RATE, P, normalization="rms"), SHAPES)
    assert known["temporaries, bytes"] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    ("optimizer", "least", "state"),
    [
        (optax.sgd(0.1, momentum=0.9), 20, 4),
        (lpoptax.lpsgdm(0.1, P, accumulator_dtype=jnp.bfloat16), 16, 2),
        (optax.adamw(0.1), 28, 8),
        (lpoptax.stacey(0.1, 3.0), 28, 8),
        (step_time.OPTIMIZERS[step_time.AXPY], 12, 0),
    ],
)
def test_what_has_to_be_moved_is_read_and_written_once(optimizer, least, state):
    _, known = step_time.compiled(optimizer, SHAPES)
    assert (known["least bytes"], known["state, bytes"]) == pytest.approx((least, state), abs=0.01)


def test_ratios_are_of_medians_and_the_floor_of_bytes():
    def known(least, compilation=2.0):
        rest = {"flops": np.nan, "state, bytes": 8.0, "compilation, s": compilation}
        return {"bytes moved": np.nan, "least bytes": least, "temporaries, bytes": 0.0, **rest}

    def seconds(*milliseconds):
        return [1e-3 * time for time in milliseconds]

    frame = step_time.frame_of(
        {
            "SGD with momentum": known(20),
            "AdamW": known(28),
            "a x + y": known(12),
            "PyTorch": known(28, np.nan),
        },
        {
            "SGD with momentum": seconds(5, 4, 9),
            "AdamW": seconds(10, 8, 12),
            "a x + y": seconds(3, 3, 3),
            "PyTorch": seconds(20, 20, 20),
        },
    )
    row = frame.loc["PyTorch"]
    assert row["/ AdamW"] == pytest.approx(2)
    assert row["/ SGD with momentum"] == pytest.approx(4)
    assert row["/ memory"] == pytest.approx(20 / 7)  # 28 bytes at 12 in 3 ms
    text = step_time.table(frame.rename_axis("step").reset_index().assign(parameters="any"))
    assert "| AdamW | 10.0 ± 2.0 | 3 | 1.00 | 2.00 | 1.43 |  | 28.0 | 0.0 |  | 8.0 | 2.0 | 1.00 |" in text


def test_the_trees_are_those_of_the_networks():
    for name, leaves, size in (("ResNet-50", 161, 25_557_032), ("Llama, 100 M", 111, 99_989_120)):
        shapes = step_time.shapes_of(*step_time.TREES[name])
        assert len(jax.tree.leaves(shapes)) == leaves
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size


def test_quick_mode_writes_the_files_that_are_committed_of_the_full_one(tmp_path, monkeypatch):
    few = {
        name: step_time.OPTIMIZERS[name] for name in (*step_time.REFERENCES, "LPSGDM, p = 3", step_time.AXPY)
    }
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


def test_its_page_shows_what_was_measured():
    after = (ROOT / "docs" / "reproducing" / "step_time.md").read_text()
    shown = cells(re.search(r"(?:^\|.*\n)+", after, re.MULTILINE)[0])
    measured = cells((RESULTS / "table.md").read_text().split("## ")[1].split("\n\n")[1])
    assert len(shown) > 5
    for step, row in shown.items():
        assert row.items() <= measured[step].items()
