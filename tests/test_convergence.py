"""The theorems and their experiment: Lemma 1, steepest descent, constants, bounds and slopes."""

import csv
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import lpoptax
from benchmarks.studies import convergence as experiment
from benchmarks.studies import convergence_theorems as theorems
from benchmarks.studies.convergence_theorems import COUPLED, DIMENSION, FIXED, OTHERS, REGIMES
from tests import reference
from tests.reference import power

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "convergence"
P = st.one_of(st.floats(2.0, 64.0), st.just(np.inf))
SEED = st.integers(0, 2**32 - 1)
RATE = st.floats(1e-4, 3.0)


def loss(x):
    return np.sum(np.log1p(x**2))


def slopes(x):
    return 2 * x / (1 + x**2)


def norm(x, p):
    return np.linalg.norm(x, p)


def smoothness(p):
    """L in the lp norm: curvatures are at most 2, and |d|_2^2 <= dimension^(1 - 2/p) |d|_p^2."""
    return 2.0 * DIMENSION ** (1 - 2 / p)


def point_and_noise(seed):
    random = np.random.default_rng(seed)
    return 10 ** random.uniform(-2, 1) * random.standard_normal(DIMENSION), random.standard_normal(DIMENSION)


def update(transformation, g):
    """Returns what the library steps along, in double precision."""
    with jax.enable_x64(True):
        updates, _ = transformation.update(jnp.asarray(g), transformation.init(g))
        return np.asarray(updates)


@given(seed=SEED, p=P, rate=RATE)
def test_lemma_1_bounds_the_loss_after_a_stochastic_step(seed, p, rate):
    x, noise = point_and_noise(seed)
    u = update(lpoptax.scale_by_lp_power(p), slopes(x) + noise)
    allowed = loss(x) - rate * slopes(x) @ u + smoothness(p) * rate**2 / 2 * norm(u, p) ** 2
    assert loss(x - rate * u) <= allowed + 1e-12 * (1 + abs(allowed))


@given(seed=SEED, p=P, rate=RATE)
def test_steepest_descent_gains_what_the_dual_norm_promises(seed, p, rate):
    x, _ = point_and_noise(seed)
    u = update(lpoptax.scale_by_lp_steepest_descent(p, eps=0.0), slopes(x))
    dual = norm(slopes(x), 1.0 if np.isinf(p) else p / (p - 1))
    allowed = loss(x) - (rate - smoothness(p) * rate**2 / 2) * dual**2
    assert loss(x - rate * u) <= allowed + 1e-9 * (1 + abs(allowed))


def test_lemma_1_is_tight_and_fails_with_half_of_the_smoothness():
    # Near 0 the function is |x|_2^2; all coordinates alike attain the bound of norms.
    x = np.full(DIMENSION, 1e-4)
    for p in (2.0, 4.0, np.inf):
        u = power(slopes(x), p, 0.0)
        rate = 1e-4 / u[0]
        second_order = loss(x - rate * u) - loss(x) + rate * slopes(x) @ u
        assert second_order == pytest.approx(smoothness(p) * rate**2 / 2 * norm(u, p) ** 2, rel=1e-6)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_noise_is_bounded_of_mean_0_and_variance_1(skewed):
    draws = np.asarray(theorems.noise(jax.random.key(0), (200_000,), skewed, 1.0), np.float64)
    assert abs(draws.mean()) < 5 / np.sqrt(len(draws))
    assert draws.var() == pytest.approx(1, abs=0.02)
    assert np.abs(draws).max() <= REGIMES[int(skewed)].largest_gradient() - 1 + 1e-6


def test_the_rates_are_those_that_the_theorems_name():
    steps = 5000
    for method in FIXED:
        p = method.p_max
        q = 1.0 if np.isinf(p) else p / (p - 1)
        largest = np.full(DIMENSION, 1 + np.sqrt(3))
        bound_of_u = norm(power(largest, p, 0.0), p)
        expected = np.sqrt(2 * loss(np.full(DIMENSION, 1.5)) / (smoothness(p) * bound_of_u**2 * steps))
        assert REGIMES[0].learning_rate(method, steps) == pytest.approx(expected)
        expected = 1 / np.sqrt(smoothness(p) * steps) / norm(largest, q) ** (1 / (p - 1))
        assert REGIMES[2].learning_rate(method, steps) == pytest.approx(expected)
        assert REGIMES[2].exponent(method) == pytest.approx(q)


def test_skewed_noise_breaks_the_alignment_that_the_theorem_assumes_unless_p_is_2():
    for method in FIXED:
        aligned = theorems.alignment(method, REGIMES[1])
        assert aligned == pytest.approx(1, rel=1e-3) if method.p_max == 2 else aligned < 0
        assert theorems.alignment(method, REGIMES[0]) > 0.5
    # For the sign it is the chance that the noise does not turn it: (1/2 + |s| / (2 sqrt 3)) of all.
    assert theorems.alignment(FIXED[-1], REGIMES[0]) == pytest.approx(1 / np.sqrt(3), rel=1e-2)


@pytest.mark.parametrize("steps", [1000, 300_000])
@pytest.mark.parametrize("method", FIXED + OTHERS[:1], ids=lambda method: method.name)
def test_the_bound_of_lpsgdms_theorem_is_the_sum_of_its_terms(method, steps):
    halfwidth, start = np.sqrt(3), loss(np.full(DIMENSION, 1.5))
    all_p = np.linspace(method.p_final, method.p_max, 9) if method.p_final < method.p_max else [method.p_max]
    # The mean of the power of s + noise, uniform between -a and a, in closed form, beside s.
    s = np.linspace(1e-3, 1, 1000)
    q = [1 + 1 / (p - 1) for p in all_p]
    integrals = np.array([((halfwidth + s) ** e - np.abs(halfwidth - s) ** e) / e for e in q])
    c1 = np.min(integrals / (2 * halfwidth * s))
    largest = np.full(DIMENSION, 1 + halfwidth)
    smooth_c2 = max(smoothness(p) * norm(power(largest, p, 0.0), p) ** 2 for p in all_p)
    rate = np.sqrt(2 * start / (smooth_c2 * steps))
    # Half of the descent pays for c3, which is 0 here.
    expected = start / (c1 / 2 * rate * steps) + smooth_c2 * rate / 2 / (c1 / 2)
    # c1 is found there from 20,001 errors, which misses the mean of a sign by up to 1/20,001 of 0.01.
    assert theorems.bound(method, REGIMES[0], steps) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("steps", [1000, 300_000])
@pytest.mark.parametrize("method", FIXED, ids=lambda method: method.name)
def test_the_bound_of_staceys_theorem_is_the_sum_of_its_terms(method, steps):
    p, smooth = method.p_max, smoothness(method.p_max)
    q = 1.0 if np.isinf(p) else p / (p - 1)
    bound_of_u = norm(np.full(DIMENSION, 1 + np.sqrt(3)), q) ** (1 / (p - 1))
    rate = 1 / np.sqrt(smooth * steps) / bound_of_u
    deviation = np.sqrt(np.ones(DIMENSION) / steps)  # of the mean of a batch.
    expected = (
        loss(np.full(DIMENSION, 1.5)) / (rate * steps)
        + (2 + 1 / (p - 1)) * bound_of_u * norm(deviation, 1)
        + smooth * rate / 2 * bound_of_u**2
    )
    assert theorems.bound(method, REGIMES[2], steps) == pytest.approx(expected)


def test_there_is_no_bound_where_a_theorem_does_not_hold_or_names_no_constants():
    skewed = {method.p_max: theorems.bound(method, REGIMES[1], 1000) for method in FIXED}
    assert [p for p, bound in skewed.items() if bound] == [2.0]
    for method in (*OTHERS[1:], *COUPLED):
        assert theorems.bound(method, REGIMES[0], 1000) is None


def test_every_committed_mean_is_below_its_bound():
    with (RESULTS / "rates.csv").open(encoding="utf-8") as text:
        rows = [row for row in csv.DictReader(text) if row["bound"]]
    assert len(rows) == 6 * (5 + 1 + 4)  # lengths, and methods with a bound in each regime.
    for row in rows:
        assert float(row["mean"]) + float(row["std"]) < float(row["bound"]), row
        (regime,) = (regime for regime in REGIMES if regime.title == row["regime"])
        (method,) = (method for method in regime.methods if method.name == row["method"])
        bound = theorems.bound(method, regime, int(row["steps"]))
        assert bound == pytest.approx(float(row["bound"]), rel=1e-3), row


def follow(method, rate, errors):
    """Returns the mean of the squared gradient along the algorithm in NumPy."""
    visited = [np.full(DIMENSION, 1.5)]
    gradients = (slopes(visited[-1]) + error for error in errors)

    def p(step):
        if method.p_max == method.p_final:
            return method.p_max
        return 2 + (method.p_max - 2) * (1 + np.cos(np.pi * step / (len(errors) - 1))) / 2

    if method.mirror_p:
        rest = (p, lambda _: method.mirror_p, rate, 0.001, 0.9, 0.99, 1e-8, 0.0)
        course = reference.stacey(visited[0], gradients, rate, *rest)
    else:
        course = reference.lpsgdm(visited[0], gradients, rate, p, method.momentum, 1e-8, 0.0)
    for x in course:
        visited.append(x)
    return np.mean([np.sum(slopes(x) ** 2) for x in visited[:-1]])


@pytest.mark.slow
def test_runs_measure_the_exact_gradient_along_the_algorithm():
    steps, regime = experiment.CHUNK, REGIMES[0]
    measured = experiment.measure(regime, steps, 3)
    key = jax.random.fold_in(jax.random.split(jax.random.key(steps), 3)[0], 0)
    draws = np.asarray(jax.random.uniform(key, (steps, DIMENSION)), np.float64)
    for method in theorems.METHODS:
        expected = follow(method, regime.learning_rate(method, steps), np.sqrt(3) * (2 * draws - 1))
        assert measured[method][0] == pytest.approx(expected, rel=1e-3)


def test_a_slope_is_found_with_its_interval():
    lengths = [10, 100, 1000]
    random = np.random.default_rng(0)
    powers = -0.5 + 0.1 * random.standard_normal(8)
    mean, half = experiment.slope(lengths, np.array(lengths)[:, None] ** powers)
    assert mean == pytest.approx(powers.mean())
    assert half == pytest.approx(2.3646 * powers.std(ddof=1) / np.sqrt(8), rel=1e-4)
