"""The experiment on generalised Gaussians: its courses are those of the algorithms."""

import numpy as np
import pytest

from benchmarks.studies import gaussians as experiment
from benchmarks.studies.gaussians import DENSITIES, LEARNING_RATES, Course
from tests import reference

STARTS = np.array([[0.5, -0.3], [-1.0, 0.8], [1.0, 1.0]], np.float32)
STEPS = 12


def gradient(x, p):
    """Of |x - mode|_p^p / p."""
    offset = x - np.array(experiment.MODE)
    return np.sign(offset) * np.abs(offset) ** (p - 1)


def distances(algorithm, start, p):
    """Returns the distances from the mode, with gradients taken where the algorithm is."""
    points = [start.astype(np.float64)]
    gradients = (gradient(points[-1], p) for _ in range(STEPS))
    for x in algorithm(points[0], gradients):
        points.append(x)
    return np.linalg.norm(np.array(points[1:]) - experiment.MODE, axis=1)


def stacey(mirror_p, alpha):
    return lambda rate, p: (
        lambda start, gradients: reference.stacey(
            start,
            gradients,
            rate,
            lambda _: p,
            lambda _: mirror_p or p,
            alpha or rate,
            0.001,
            0.9,
            0.99,
            1e-8,
            0.0,
        )
    )


def lpsgdm(rate, p):
    def annealed(step):
        return 2 + 4 * (1 + np.cos(np.pi * step / (STEPS - 1))) / 2

    return lambda start, gradients: reference.lpsgdm(start, gradients, rate, annealed, 0.9, 1e-8, 0.0)


def lion(rate, p):
    def steps(x, gradients):
        m = np.zeros_like(x)
        for g in gradients:
            x = x - rate * np.sign(0.9 * m + 0.1 * g)
            m = 0.99 * m + 0.01 * g
            yield x

    return steps


def adam(rate, p):
    def steps(x, gradients):
        m, v = np.zeros_like(x), np.zeros_like(x)
        for count, g in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            x = x - rate * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
            yield x

    return steps


ALGORITHMS = {
    "STACEY(p,2)": stacey(2.0, 0.01),
    "STACEY(p,p)": stacey(None, 0.01),
    "STACEY(p,2), alpha = rate": stacey(2.0, None),
    "AdamW": adam,
    "Lion": lion,
    "LPSGDM, 6 → 2": lpsgdm,
}


@pytest.mark.parametrize("name", experiment.OPTIMIZERS)
def test_all_rates_densities_and_starts_in_one_program_go_where_each_goes_alone(name):
    course = experiment.course(experiment.OPTIMIZERS[name], STEPS, STARTS)
    assert course.distances.shape == (len(LEARNING_RATES), len(DENSITIES), STEPS, len(STARTS))
    for density, p in enumerate(DENSITIES):
        for rate in (0, experiment.PAPER_RATE):
            for index, start in enumerate(STARTS):
                expected = distances(ALGORITHMS[name](LEARNING_RATES[rate], p), start, p)
                np.testing.assert_allclose(course.distances[rate, density, :, index], expected, rtol=2e-4)
    points = course.points[experiment.PAPER_RATE]
    shown = np.linalg.norm(points - experiment.MODE, axis=-1)
    np.testing.assert_allclose(shown, course.distances[experiment.PAPER_RATE, ..., 0], rtol=1e-5)


def test_starts_that_diverge_are_counted_and_left_out_and_the_best_rate_has_fewest_of_them():
    values = np.ones((len(LEARNING_RATES), 1, 3, 4))
    values[1, 0, -1] = [np.nan, 0.1, 0.2, 0.3]  # nearer, but for one that is lost
    values[2, 0, -1] = [0.6, 0.4, 0.5, 0.9]
    course = Course(values, np.zeros((len(LEARNING_RATES), 1, 3, 2)))
    values[:, 0, 0] = 1.5
    assert course.diverged(1, 0).tolist() == [True, False, False, False]
    mean, std = course.mean_and_std(1, 0)
    assert (mean[-1], std[-1]) == pytest.approx((0.2, 0.1))
    assert course.best_rate(0) == 2


def test_iterations_are_counted_until_the_distance_stays():
    assert experiment.iterations_to(0.1, np.array([0.5, 0.05, 0.2, 0.1, 0.01])) == 4
    assert experiment.iterations_to(0.1, np.array([0.1, 0.1])) == 1
    assert experiment.iterations_to(0.1, np.array([0.05, 0.2])) is None
    assert experiment.iterations_to(0.1, np.array([0.05, np.nan])) is None
