"""The experiment on generalised Gaussians: its courses are those of the algorithms."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import gaussians as experiment
from benchmarks.studies.gaussians import DENSITIES, LEARNING_RATES
from tests import reference

STARTS = np.array([[0.5, -0.3], [-1.0, 0.8], [1.0, 1.0]], np.float32)
STEPS = 12
PAPER_RATE = list(LEARNING_RATES).index(experiment.PAPER_RATE)


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
    build = experiment.OPTIMIZERS[name]
    measured, points = map(np.asarray, experiment.descend(build, STEPS, STARTS, LEARNING_RATES))
    assert measured.shape == (len(LEARNING_RATES), len(DENSITIES), STEPS, len(STARTS))
    for density, p in enumerate(DENSITIES):
        for rate in (0, PAPER_RATE):
            for index, start in enumerate(STARTS):
                expected = distances(ALGORITHMS[name](LEARNING_RATES[rate], p), start, p)
                np.testing.assert_allclose(measured[rate, density, :, index], expected, rtol=2e-4)
    shown = np.linalg.norm(points[PAPER_RATE] - experiment.MODE, axis=-1)
    np.testing.assert_allclose(shown, measured[PAPER_RATE, ..., 0], rtol=1e-5)


def course(rate, at_first, at_the_end):
    distances = np.array([at_first, at_first, at_the_end])
    how = {"p": 2.0, "optimizer": "any", "learning_rate": rate}
    return {**how, **experiment.summary(distances)}


def test_starts_that_diverge_are_counted_and_left_out_and_the_best_rate_has_fewest_of_them():
    nearer_but_for_one = course(0.01, [1.5] * 4, [np.nan, 0.1, 0.2, 0.3])
    assert nearer_but_for_one["diverged"] == 1
    assert (nearer_but_for_one["end"], nearer_but_for_one["spread"].iloc[-1]) == pytest.approx((0.2, 0.1))
    paper = course(1e-3, [1.5] * 4, [1.0] * 4)
    best = course(0.1, [1.5] * 4, [0.6, 0.4, 0.5, 0.9])
    lost = course(1.0, [1.5] * 4, [np.inf] * 4)
    rows = experiment.chosen(pd.DataFrame([nearer_but_for_one, paper, best, lost]))
    assert rows.rate.tolist() == ["paper", "best"]
    assert rows.learning_rate.tolist() == ["0.001", "0.1"]
    assert rows.distance.tolist() == ["1", "0.6"]


@pytest.mark.parametrize(
    ("distances", "iterations"),
    [([0.5, 0.05, 0.2, 0.1, 0.01], 4), ([0.1, 0.1], 1), ([0.05, 0.2], ""), ([0.05, np.nan], "")],
)
def test_iterations_are_counted_until_the_distance_stays(distances, iterations):
    assert experiment.iterations_to(0.1, pd.Series(distances)) == iterations
