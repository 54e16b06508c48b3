"""Scales that keep powers of all coordinates, and sums of them, in the range of floats."""

import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lpoptax._hyperparameters import is_number
from lpoptax._power import inverse_p_minus_1, signed_power
from lpoptax._precision import largest_finite, scalar, smallest_normal, widen


def exponent_of(p: ArrayLike, leaves: Sequence[ArrayLike]) -> tuple[jax.Array, bool | None]:
    """Returns 1 / (p - 1), and whether p is below 2: None if it is traced, so that only the step can tell."""
    (common,) = widen(*(jnp.zeros((), jnp.asarray(leaf).dtype) for leaf in leaves))[:1]
    return inverse_p_minus_1(p, common), (p < 2 if is_number(p) else None)


def scaled_power(
    leaves: Sequence[ArrayLike], exponent: jax.Array, eps: ArrayLike, scale: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns the leaves divided by a scale, and the power map of these.

    There eps is relative, too. For p < 2, where nothing is divided by, it is not used.
    """
    # Products: XLA would merge quotients in a row into one of a subnormal denominator.
    relative = [times(leaf, 1 / scale) for leaf in leaves]
    smoothing = jnp.where(exponent > 1, 0, relative_eps(eps, scale))
    return relative, [signed_power(g, scalar(exponent, g), scalar(smoothing, g)) for g in relative]


def relative_eps(eps: ArrayLike, scale: jax.Array) -> jax.Array:
    """Returns the quotient, or a large number whose reciprocal is not subnormal."""
    return jnp.minimum(scalar(eps, scale) / scale, 1 / (4 * smallest_normal(scale)))


def scale_of(leaves: Sequence[ArrayLike], exponent: jax.Array, below_2: bool | None) -> jax.Array:
    """Returns 1 for p >= 2. For p < 2 large coordinates overflow, so it is the largest magnitude."""
    one = jnp.ones_like(exponent)
    if below_2 is not None:
        return largest(leaves) if below_2 else one
    # In `jax.shard_map` both branches must vary over the devices: an empty sum does as its leaf does.
    zero = jnp.stack(widen(*(jnp.sum(jnp.abs(jnp.asarray(g))[None][:0]) for g in leaves))).sum()
    # A branch, and no selection: on many devices the largest costs a second round of communication.
    return jax.lax.cond(exponent > 1, lambda: largest(leaves), lambda: one + zero)


def largest(leaves: Sequence[ArrayLike]) -> jax.Array:
    """Returns the largest magnitude, or the nearest number that has a normal reciprocal."""
    magnitudes = jnp.stack(widen(*(jnp.max(jnp.abs(jnp.asarray(g)), initial=0) for g in leaves))).max()
    return jnp.clip(magnitudes, smallest_normal(magnitudes), 1 / (4 * smallest_normal(magnitudes)))


def sum_of_powers(leaves: Sequence[jax.Array], exponent: jax.Array) -> jax.Array:
    """Returns the sum of |g|^exponent over the coordinates of all leaves."""

    def total(g: jax.Array) -> jax.Array:
        magnitude = jnp.abs(g)
        return jnp.sum(signed_power(magnitude, scalar(exponent, g), jnp.zeros_like(magnitude, shape=())))

    return jnp.stack(widen(*map(total, leaves))).sum()


def sum_of_squares(leaves: Sequence[ArrayLike], size: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Returns a scale, which is 1 if it can be, and the sum of |scale * g|^2 over all coordinates."""

    def total(scale: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(jnp.abs(times(leaf, scale)) ** 2) for leaf in leaves]).sum()

    (common,) = widen(*(jnp.zeros((), jnp.asarray(leaf).dtype) for leaf in leaves))[:1]
    one = scalar(1, common)
    plain = total(one)
    # A power of 2 that takes the square of the smallest normal number far from where it is lost,
    # and its inverse that of the largest.
    up = 2.0 ** round(-0.75 * math.log2(smallest_normal(one)))
    is_small = plain < scalar(size, one) / up
    is_fine = ~is_small & (plain < jnp.inf)
    scale = jnp.where(is_fine, one, jnp.where(is_small, one * up, one / up))
    # A branch, and no selection: on many devices the second sum is a second round of communication.
    return scale, jax.lax.cond(is_fine, lambda: plain, lambda: total(scale))


def clipped(x: jax.Array) -> jax.Array:
    """Returns the nearest normal number to a positive one, so that its product with 0 is 0."""
    return jnp.clip(x, smallest_normal(x), largest_finite(x))


def times(leaf: ArrayLike, scale: jax.Array) -> jax.Array:
    """Returns the product in the dtype to compute in."""
    return operator.mul(*widen(leaf, scale))
