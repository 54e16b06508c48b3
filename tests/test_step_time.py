"""Steps move few bytes, and the benchmark of them counts and compares what it should."""

import jax
import jax.numpy as jnp
import optax
import pytest

import lpoptax
from benchmarks import step_time

SHAPES = {"a": jnp.zeros(1 << 14), "b": jnp.zeros((64, 256))}
P = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=1000)
RATE = optax.cosine_decay_schedule(0.1, 1000)


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
    assert "| AdamW | 10.0 ± 2.0 | 1.00 | 2.00 | 1.43 |" in text


def test_the_trees_are_those_of_the_networks():
    for name, leaves, size in (("ResNet-50", 161, 25_557_032), ("Llama, 100 M", 111, 99_989_120)):
        shapes = step_time.TREES[name]()
        assert len(jax.tree.leaves(shapes)) == leaves
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size
