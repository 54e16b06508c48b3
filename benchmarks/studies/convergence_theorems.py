"""What the papers' convergence theorems say of a function whose constants are known.

The function is the sum of log(1 + x^2) over the coordinates: bounded below by 0, with slopes
between -1 and 1 and curvatures between -1/4 and 2, so nonconvex. As |d|_2^2 <= d^(1 - 2/p) |d|_p^2
in d dimensions and p >= 2, it is L-smooth in the lp norm with L = 2 d^(1 - 2/p). The noise is bounded,
of mean 0 and variance 1; a batch of n has noise of variance 1/n, which is all that the theorem asks of it.

LPSGDM's Theorem 1: with bounded updates (c3 = 0, c2 = d^(2/p) largest^(2/(p - 1))) and an expected
update u that has <gradient, u> >= c1 |gradient|^2 at every point, the rate is sqrt(2 f(x_0) / (L c2 T)).
Stacey's Theorem 1: with batches of T and a gradient of dual norm at most G, the rate is
1 / (sqrt(L T) G^(1/(p - 1))).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import lpoptax
from benchmarks.config.annealing import label

DIMENSION = 10
START = 1.5  # of every coordinate, where the function is concave.
CURVATURE = 2.0  # the largest of log(1 + x^2); the least is -1/4.
EXCESS = float(DIMENSION * np.log1p(START**2))  # of the loss at the start over its minimum, which is 0.
UNIFORM = float(np.sqrt(3))  # a half-width for variance 1.
SKEWED = {"rare": 3.0, "common": -1 / 3, "chance": 0.1}  # of mean 0 and variance 1.


class Method(NamedTuple):
    """LPSGDM, of which LPSGD is the case without momentum, or STACEY; and its norms."""

    p_max: float
    p_final: float
    momentum: float = 0.0
    mirror_p: float = 0.0  # STACEY's, if it is that.

    @property
    def name(self) -> str:
        """Returns what to call it."""
        if self.mirror_p:
            return f"STACEY({self.p_max:g},{self.mirror_p:g})"
        return f"LPSGD{'M' if self.momentum else ''}, p {label(self.p_max, self.p_final)}"


FIXED = [Method(p, p) for p in (2.0, 3.0, 6.0, np.inf)]
OTHERS = [Method(6.0, 2.0), Method(3.0, 3.0, momentum=0.9), Method(6.0, 2.0, momentum=0.9)]
COUPLED = [Method(3.0, 3.0, mirror_p=mirror_p) for mirror_p in (2.0, 3.0)]
METHODS = [*FIXED, *OTHERS, *COUPLED]


class Regime(NamedTuple):
    """What a theorem is about."""

    title: str
    methods: tuple[Method, ...]
    skewed: bool = False
    # Batches as large as T and the dual norm, not one sample and the square of the 2-norm.
    stacey: bool = False

    def largest_gradient(self) -> float:
        """Returns what a coordinate of a stochastic gradient cannot exceed."""
        # The slopes of log(1 + x^2) are between -1 and 1.
        return 1 + (SKEWED["rare"] if self.skewed else UNIFORM)

    def exponent(self, method: Method) -> float:
        """Returns the power of each coordinate of the gradient that is summed."""
        return 1 + 1 / (method.p_max - 1) if self.stacey else 2.0

    def learning_rate(self, method: Method, steps: int) -> float:
        """Returns the constant rate that the theorem names."""
        # L c2, and L G^(2/(p - 1)); if p is annealed the largest, which is that of the last.
        bound = CURVATURE * DIMENSION * self.largest_gradient() ** (2 / (method.p_final - 1))
        return float(np.sqrt((1 if self.stacey else 2 * EXCESS) / (bound * steps)))


REGIMES = [
    Regime("LPSGDM's theorems, symmetric noise", tuple(METHODS)),
    Regime("LPSGDM's theorems, skewed noise", tuple(METHODS), skewed=True),
    Regime("Stacey's theorem, batches of T", (*FIXED, *COUPLED), stacey=True),
]


def noise(key: jax.Array, shape: tuple[int, ...], skewed: jax.Array, scale: jax.Array) -> jax.Array:
    """Returns bounded noise of mean 0 and standard deviation `scale`."""
    uniform = jax.random.uniform(key, shape)
    two_values = jnp.where(uniform < SKEWED["chance"], SKEWED["rare"], SKEWED["common"])
    return scale * jnp.where(skewed, two_values, UNIFORM * (2 * uniform - 1))


@functools.cache
def alignment(method: Method, regime: Regime) -> float:
    """Returns c1, for the worst gradient and p."""
    slopes = np.linspace(-1, 1, 100)[:, None]  # an even number: none is 0.
    errors = UNIFORM * np.linspace(-1, 1, 20_001)
    weights = np.full(errors.shape, 1 / len(errors))
    if regime.skewed:
        errors = np.array([SKEWED["rare"], SKEWED["common"]])
        weights = np.array([SKEWED["chance"], 1 - SKEWED["chance"]])
    fixed = method.p_max == method.p_final
    every_p = [method.p_max] if fixed else np.linspace(method.p_final, method.p_max, 9)
    expected = [np.asarray(lpoptax.lp_power(slopes + errors, p), np.float64) @ weights for p in every_p]
    return float(np.min(np.array(expected) / slopes[:, 0]))


def bound(method: Method, regime: Regime, steps: int) -> float | None:
    """Returns what the theorem allows the mean to be; None where it says nothing."""
    if method.mirror_p or method.momentum:
        return None
    rate = regime.learning_rate(method, steps)
    if regime.stacey:
        bound_of_u = regime.largest_gradient() ** (1 / (method.p_max - 1))
        noise_term = (2 + 1 / (method.p_max - 1)) * bound_of_u * DIMENSION ** (1 / method.p_max) * DIMENSION
        return EXCESS / (rate * steps) + noise_term / np.sqrt(steps) + 1 / (2 * rate * steps)
    c = alignment(method, regime)
    # The rate makes both terms of the theorem's bound the same.
    return 4 * EXCESS / (rate * c * steps) if c > 0 else None
