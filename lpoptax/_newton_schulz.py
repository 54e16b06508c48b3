"""Powers of the singular values of matrices, by products of matrices alone.

An odd polynomial of a matrix, such as (2.5 I - 2.5 A + A²) X with A = X Xᵀ, acts on each singular
value. Iterated, it makes all of them 1, and the iterates on the way there are ramps: linear up to a
singular value of about 2.5^-k, and 1 above. A power from 0 to 1 is an integral of such ramps, so a
sum of the iterates comes close to it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lpoptax._precision import factor, scalar, smallest_normal

# The sum is fitted for singular values from 1.5 * 2.5^-steps, where the last two iterates still differ: from
# below it would be 15 % wrong, and from far above the weights would be the difference of large ones.
_LOWEST, _SLOPE, _POINTS = 1.5, 2.5, 128
# Each step multiplies rounding errors of A by up to 6.25: four at once do no harm in float32, and three none
# in the bfloat16 that accelerators may round the operands of products to.
_STEPS_OF_POLYNOMIALS = 3


def schatten_power(
    matrices: jax.Array,
    exponent: jax.Array,
    eps: ArrayLike,
    *,
    steps: int,
    precision: jax.lax.PrecisionLike,
    unit_rms: bool,
) -> jax.Array:
    """Returns U diag(s / (s + eps)^(1 - exponent)) V^T of each U diag(s) V^T in a stack [N, m, n], m <= n.

    They are at least float32. With `unit_rms` each matrix is divided by its root mean square
    instead of having a scale.
    """
    exponent = scalar(exponent, matrices)
    largest = _largest(matrices)
    # A product: XLA would merge quotients in a row into one of a subnormal denominator.
    x, gram, square, norm = _normalized(matrices * factor(1 / largest, matrices), precision)
    relative_eps = scalar(eps, matrices) / largest
    weights = _weights(steps, exponent, (relative_eps / norm)[:, 0, 0])
    mixed = _mixed_iterates(x, gram, square, factor(weights, x), precision)
    if unit_rms:
        return mixed / factor(_root(jnp.mean, mixed), mixed)
    # One after the other: the product of both may leave the range of floats. By XLA's own powers,
    # of one operation: the compiler may repeat it for each leaf that is sliced from the result.
    scaled = mixed * factor(norm * (norm + relative_eps) ** (exponent - 1), mixed)
    return scaled * factor(largest**exponent, mixed)


def _largest(matrices: jax.Array) -> jax.Array:
    # Only a unit: what is computed in it does not depend on it.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrices), axis=(1, 2), keepdims=True))
    # Where neither it nor its reciprocal is subnormal.
    limits = smallest_normal(largest), 1 / (4 * smallest_normal(largest))
    return jnp.where(largest == 0, 1, jnp.clip(largest, *limits))


def _normalized(x: jax.Array, precision: jax.lax.PrecisionLike) -> tuple[jax.Array, ...]:
    """Returns X with singular values of at most 1, its A = X Xᵀ, A², and the number that X was divided by.

    That is the 8-norm of the singular values, for which the A² of the first step is enough: at most m^(1/8)
    times the largest, and 1.7 times for m singular values that are all alike at m = 64.
    """
    gram = _product(x, _adjoint(x), precision)
    norm = _root(jnp.sum, gram)
    gram = gram / factor(norm, gram)
    square = _product(gram, gram, precision)
    ratio = _root(jnp.sum, square)
    root = jnp.sqrt(ratio)
    norm = jnp.sqrt(norm * root)
    return x / factor(norm, x), gram / factor(root, gram), square / factor(ratio, square), norm


def _weights(steps: int, exponent: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns the weight of each iterate in each matrix, [N, steps + 1]; eps is relative to the norm."""
    grid, inverse = (jnp.asarray(x, eps.dtype) for x in _fit(steps))
    # The power of the grid, divided by that of 1, so that it is near 1 whatever eps is.
    smoothing = 1 + (1 - grid)[None] / (grid[None] + eps[:, None])
    return _product(grid[None] * smoothing ** (1 - exponent), inverse.T, "highest")


@functools.cache
def _fit(steps: int) -> tuple[Any, Any]:
    """Returns singular values, and the matrix that takes their function to the weights of the iterates."""
    grid = np.geomspace(_LOWEST * _SLOPE**-steps, 1, _POINTS)
    iterates = [grid]
    for _ in range(steps):
        t = iterates[-1]
        iterates.append(t * (_SLOPE - 2.5 * t**2 + t**4))
    return grid, np.linalg.pinv(np.stack(iterates, axis=1))


def _mixed_iterates(
    x: jax.Array, gram: jax.Array, square: jax.Array, weights: jax.Array, precision: jax.lax.PrecisionLike
) -> jax.Array:
    """Returns the weighted sum of X and its iterates.

    The iterates of a few steps are polynomials of A times the first of them. For wide matrices the
    polynomials, which are square, are computed instead.
    """
    steps = weights.shape[1] - 1
    stride = _STEPS_OF_POLYNOMIALS if 2 * x.shape[1] <= x.shape[2] else 1
    first = (steps - 1) % stride + 1  # so that all later strides are as long.
    weights = jnp.moveaxis(weights, 1, 0)[..., None, None]

    def advance(
        x: jax.Array, total: jax.Array, gram: jax.Array, square: jax.Array, weights: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        last, mixed = _polynomials(gram, square, weights[:-1], precision)
        total = total if len(weights) == 1 else total + _product(mixed, x, precision)
        x = _product(last, x, precision)
        return x, total + weights[-1] * x

    def next_stride(carry: tuple[jax.Array, jax.Array], weights: jax.Array) -> tuple[Any, None]:
        x, total = carry
        gram = _product(x, _adjoint(x), precision)
        return advance(x, total, gram, _product(gram, gram, precision), weights), None

    carry = advance(x, weights[0] * x, gram, square, weights[1 : first + 1])
    # A loop: the compiler would else keep all iterates, and compute their sum for each leaf by itself.
    later = jnp.reshape(weights[first + 1 :], (-1, stride, *weights.shape[1:]))
    (_, total), _ = jax.lax.scan(next_stride, carry, later)
    return total


def _polynomials(
    gram: jax.Array, square: jax.Array, weights: jax.Array, precision: jax.lax.PrecisionLike
) -> tuple[jax.Array, jax.Array]:
    """Returns the polynomial of A that is a step more than there are weights, and the sum of those before."""
    identity = jnp.eye(gram.shape[1], dtype=gram.dtype)[None]
    step = last = _SLOPE * identity - 2.5 * gram + square
    mixed = jnp.zeros_like(gram)
    for weight in weights:
        mixed = mixed + weight * last
        gram = _product(_product(gram, step, precision), step, precision)
        step = _SLOPE * identity - 2.5 * gram + _product(gram, gram, precision)
        last = _product(step, last, precision)
    return last, mixed


def _product(x: jax.Array, y: jax.Array, precision: jax.lax.PrecisionLike) -> jax.Array:
    return jnp.matmul(x, y, precision=precision)


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, 1, 2))


def _root(of: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """Returns the root of the sum, or the mean, of each matrix's squares; for 0 it is 1, to divide by."""
    total = of(jnp.abs(x) ** 2, axis=(1, 2), keepdims=True)
    return jnp.sqrt(jnp.where(total == 0, 1, total))
