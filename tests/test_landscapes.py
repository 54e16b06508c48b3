"""The experiment on quadratics counts steps rightly, and quick mode writes what full mode does."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.studies import landscapes
from benchmarks.studies.landscapes import NORMS, Problem, Workload
from tests.reference import power

AXES = Workload(dimension=4, condition=50.0, rotated=False, starts=2, longest=8)


def relative_losses(workload, steps):
    """Returns norms x constant or cosine x rates."""
    problems = landscapes.problems_of(workload)
    return np.asarray(landscapes.mean_final_losses(problems, steps, *landscapes.settings(NORMS)))


def descend(curvature, x, p, rate):
    """LPSGD in NumPy; p and rate are functions of the step."""
    for step in range(8):
        x = x - rate(step) * power(curvature * x, p(step))
    return np.sum(curvature * x**2) / 2


def test_every_p_and_rate_descends_as_the_formula_says():
    problems = landscapes.problems_of(AXES)
    curvature = np.asarray(problems.curvature, np.float64)
    measured = relative_losses(AXES, 8)
    for index, (first, last) in enumerate(NORMS.values()):
        for decays, rate_index in ((0, 6), (0, 12), (1, 9)):

            def p(step, first=first, last=last):
                if first == last:
                    return first
                return 2 + (first - 2) * (1 + np.cos(np.pi * step / 7)) / 2

            def rate(step, decays=decays, rate_index=rate_index):
                factor = (1 + np.cos(np.pi * step / 8)) / 2 if decays else 1
                return landscapes.LEARNING_RATES[rate_index] * factor

            expected = [
                descend(curvature, x, p, rate) / (np.sum(curvature * x**2) / 2)
                for x in np.asarray(problems.start, np.float64)
            ]
            assert measured[index, decays, rate_index] == pytest.approx(np.mean(expected), rel=2e-3)


def test_a_rotation_keeps_the_curvatures_and_p_2_alone_ignores_it():
    workload = AXES._replace(rotated=True, starts=8)
    curvature, (left, right), _ = landscapes.problems_of(workload)
    for sides in zip(np.asarray(left), np.asarray(right), strict=True):
        rotation = np.kron(*sides)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-5)
        hessian = rotation.T @ np.diag(curvature) @ rotation
        np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(hessian)), np.sort(curvature), rtol=1e-4)
    x = jnp.arange(4.0)
    for index in range(8):  # among them rotations that are not their own transposes
        problem = Problem(curvature, (left[index], right[index]), x)
        q = np.kron(np.asarray(left[index]), np.asarray(right[index]))
        loss = float(np.sum(curvature * (q @ np.arange(4.0)) ** 2) / 2)
        assert float(problem.loss(x)) == pytest.approx(loss, rel=1e-4)
    # Gradient descent from rotated starts takes the same course.
    rotated = Problem(curvature, (left[7:], right[7:]), x[None])
    aligned = Problem(curvature, (), jnp.asarray(q @ np.arange(4.0), jnp.float32)[None])
    ends = [
        landscapes.mean_final_losses(problems, 9, p, p, 0.05, False)
        for p in (2.0, np.inf)
        for problems in (rotated, aligned)
    ]
    assert float(ends[0]) == pytest.approx(float(ends[1]), rel=1e-3)
    assert float(ends[2]) != pytest.approx(float(ends[3]), rel=1e-3)


def test_the_fewest_steps_are_those_of_the_formula_for_gradient_descent():
    workload = AXES._replace(condition=1.5, longest=16)
    rows = landscapes.measure(workload).to_dict("records")
    curvature = 1.5 ** np.linspace(0.5, -0.5, 4)
    starts = np.asarray(landscapes.problems_of(workload).start, np.float64)
    for row in rows:
        if row["p"] == "2" and row["rate"] == "constant":
            expected = next(
                steps
                for steps in landscapes.lengths(16)
                if min(
                    np.mean([loss_after(curvature, x, rate, steps) for x in starts])
                    for rate in landscapes.LEARNING_RATES
                )
                <= row["target"]
            )
            assert row["steps"] == expected


def loss_after(curvature, x, rate, steps):
    """What gradient descent leaves of the loss of a quadratic, in closed form."""
    return np.sum(curvature * ((1 - rate * curvature) ** steps * x) ** 2) / np.sum(curvature * x**2)
