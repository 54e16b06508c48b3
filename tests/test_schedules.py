"""The p schedules against their formulas, at their ends and past them."""

import chex
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import lpoptax


@given(p_max=st.floats(2.0, 64.0), total_steps=st.integers(2, 1000), step=st.integers(0, 2000))
def test_cosine_equals_the_formula(p_max, total_steps, step):
    s = min(step + 1, total_steps)
    expected = 2 + (p_max - 2) * (1 + np.cos(np.pi * (s - 1) / (total_steps - 1))) / 2
    p = lpoptax.cosine_p_schedule(p_max, total_steps)(step)
    # The cosine of a float32 angle near pi/2 is off by about 1e-7 of the amplitude.
    assert float(p) == pytest.approx(expected, rel=3e-7, abs=3e-7 * p_max)


@given(p_max=st.floats(2.0, 64.0), epochs=st.integers(1, 20), steps_per_epoch=st.integers(1, 20))
def test_cosine_per_epoch_holds_p_for_an_epoch(p_max, epochs, steps_per_epoch):
    by_step = lpoptax.cosine_p_schedule(p_max, epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)
    by_epoch = lpoptax.cosine_p_schedule(p_max, epochs)
    # As many for every example, or each would be compiled anew.
    steps = jnp.asarray(np.linspace(0, (epochs + 2) * steps_per_epoch - 1, 441).round().astype(np.int32))
    chex.assert_trees_all_equal(by_step(steps), by_epoch(steps // steps_per_epoch))


@pytest.mark.parametrize("p_final", [2.0, 1.5, 3.0])
def test_cosine_starts_at_p_max_and_ends_exactly_at_p_final(p_final):
    schedule = lpoptax.cosine_p_schedule(6.0, 100, p_final=p_final)
    assert schedule(0) == 6.0
    assert schedule(98) > p_final
    for step in (99, 100, 10**6, 2**31 - 1):
        assert schedule(jnp.int32(step)) == p_final


def test_cosine_ends_at_p_final_in_a_shorter_last_epoch():
    schedule = lpoptax.cosine_p_schedule(6.0, 25, steps_per_epoch=10)
    assert [float(schedule(step)) for step in (0, 9, 10, 19, 20, 24, 25)] == [6, 6, 4, 4, 2, 2, 2]


def test_cosine_of_a_single_step_starts_at_p_max_and_then_stays_at_p_final():
    schedule = lpoptax.cosine_p_schedule(6.0, 1)
    assert [float(schedule(step)) for step in range(3)] == [6.0, 2.0, 2.0]


def test_cosine_takes_a_traced_p_max():
    def p(p_max):
        return lpoptax.cosine_p_schedule(p_max, 5)(2)

    chex.assert_trees_all_close(jax.jit(jax.vmap(p))(jnp.array([4.0, 6.0])), jnp.array([3.0, 4.0]))


def test_gradual_takes_the_exponent_from_0_to_1_in_equal_steps():
    schedule = lpoptax.gradual_p_schedule(10)
    exponents = [1 / (float(schedule(step)) - 1) for step in range(13)]
    assert exponents == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("schedule", [lpoptax.cosine_p_schedule(6.0, 10), lpoptax.gradual_p_schedule(10)])
def test_schedules_are_the_same_under_jit_and_over_arrays(schedule):
    steps = jnp.arange(12)
    each = jnp.stack([schedule(step) for step in range(12)])
    chex.assert_trees_all_close(schedule(steps), each, rtol=1e-6)
    chex.assert_trees_all_close(jax.jit(schedule)(steps), each, rtol=1e-6)
    assert each.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p_max": 1.5, "total_steps": 10}, r"p_max must be at least p_final=2.0, got p_max=1.5"),
        ({"p_max": np.inf, "total_steps": 10}, r"p_max must be finite .*, got p_max=inf"),
        (
            {"p_max": 6.0, "total_steps": 10, "p_final": 1.0},
            r"p_final must be greater than 1 .*, got p_final=1.0",
        ),
        (
            {"p_max": 6.0, "total_steps": 0},
            r"total_steps must be a whole number, at least 1, got total_steps=0",
        ),
        ({"p_max": 6.0, "total_steps": 1.5}, r"total_steps must be a whole number, .* total_steps=1.5"),
        ({"p_max": 6.0, "total_steps": np.inf}, r"total_steps must be a whole number, .* total_steps=inf"),
        (
            {"p_max": 6.0, "total_steps": 9, "steps_per_epoch": 0},
            r"steps_per_epoch must .* steps_per_epoch=0",
        ),
    ],
)
def test_cosine_refuses_what_is_no_schedule(arguments, message):
    with pytest.raises(ValueError, match=message):
        lpoptax.cosine_p_schedule(**arguments)


def test_gradual_refuses_no_steps():
    with pytest.raises(ValueError, match="total_steps must be a whole number, at least 1, got total_steps=0"):
        lpoptax.gradual_p_schedule(0)
