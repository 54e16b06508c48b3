"""Powers, logarithms and exponentials in float32, of what is cheap on each platform.

XLA's CPU backend calls a scalar function for each power, which would take longer than all else in a step,
and its logarithms take longer than a polynomial. A TPU has instructions for both. Whichever it is, the
exponent of a power's base is taken out of its bits, so that only numbers near 1 have a logarithm, and
only those from 0 to 1 an exponential. Then the error of the power is a few roundings of these. On CPU its
bound is measured; how accurate a TPU's own functions are is not known here. GPUs take what CPUs do, other
dtypes XLA's functions on all platforms.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lpoptax._precision import largest_finite

_BITS_OF_SQRT_HALF, _FRACTION_BITS = 0x3F3504F3, 23
# In a sum with 1.5 * 2^23 + 127 the last bits are those of 2^n.
_SHIFT = 1.5 * 2**23 + 127
# Minimax polynomials for log2(1 + t) / t on [sqrt(1/2) - 1, sqrt(2) - 1], to 6e-8 in log2(1 + t),
# and for (2^r - 1) / r on [-1/2, 1/2], to 1.4e-7 in 2^r, and on [0, 1], to 8e-8.
_LOG2 = (1.4426948, -0.72135717, 0.48093945, -0.36008722, 0.28670746, -0.25006902, 0.23689039, -0.1457445)
_GROWTH_NEAR_0 = (0.693147, 0.24022242, 0.055507336, 0.009671513, 0.0013264727)
_GROWTH_FROM_0_TO_1 = (0.69315131, 0.24016445, 0.05579992, 0.00901702, 0.00186713)


def power_factors(x: jax.Array, exponent: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns two finite factors of x^exponent, for x that are positive and normal."""
    if x.dtype != jnp.float32:
        root = jnp.minimum(x ** (exponent / 2), largest_finite(x))
        return root, root
    # Beyond 2^19, which is p - 1 < 2e-6, the polynomial would overflow.
    exponent = jnp.where(exponent > 2**19, 2**19, exponent)
    k, m = _split(x)
    # With twelve bits of the exponent the product with k has no more than a float holds.
    coarse = _from_bits(_to_bits(exponent) & ~0xFFF)
    exact, rest = coarse * k, (exponent - coarse) * k + exponent * _log2_near_1(m)
    # Downwards: to the nearest, a power just below 2^128 would have no finite 2^n.
    n = _clip(jnp.floor(exact + rest), -127, 127)
    return _exp2_of_fraction((exact - n) + rest), _power_of_2(n)


def _split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns k and m of x = 2^k m, where m is from sqrt(1/2) to sqrt(2)."""
    bits = _to_bits(x)
    k = (bits - _BITS_OF_SQRT_HALF) >> _FRACTION_BITS
    return k.astype(x.dtype), _from_bits(bits - (k << _FRACTION_BITS))


def _clip(x: jax.Array, low: float, high: float) -> jax.Array:
    # On CPU an instruction each, unlike XLA's own minimum and maximum; nan stays nan.
    x = jnp.where(x < low, low, x)
    return jnp.where(x > high, high, x)


def _nearest(x: jax.Array) -> jax.Array:
    return jax.lax.round(x, jax.lax.RoundingMethod.TO_NEAREST_EVEN)


def _power_of_2(n: jax.Array) -> jax.Array:
    """Returns 2^n for whole numbers from -126 to 127, and 0 for -127."""
    return _from_bits(_to_bits(n + _SHIFT) << _FRACTION_BITS)


def _to_bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _from_bits(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _log2_1p_near_0(t: jax.Array) -> jax.Array:
    return t * _polynomial(_LOG2, t)


def _log2(x: jax.Array) -> jax.Array:
    k, m = _split(x)
    return jnp.where(x < jnp.inf, k + _log2_1p_near_0(m - 1), x)


def _log2_1p(s: jax.Array) -> jax.Array:
    k, m = _split(1 + s)
    t = jnp.where(k == 0, s, m - 1)  # 1 + s is rounded.
    # Where s is nan it stays nan. No product with infinity: in an unselected branch it could be nan, too.
    return jnp.where(s > -1, k + _log2_1p_near_0(t), jnp.where(s == -1, -jnp.inf, s))


def _exp2_and_growth(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = _clip(x, -126, 128)
    n = _nearest(x)
    growth = _exp2_m1_near_0(x - n)
    # By half of 2^n, since 2^128 is infinite; half of 2^-126 is 0 in these bits.
    power = (1 + growth) * _power_of_2(n - 1) * 2
    return power, jnp.where(n == 0, growth, power - 1)


def _exp2_m1_near_0(r: jax.Array) -> jax.Array:
    return r * _polynomial(_GROWTH_NEAR_0, r)


def _exp2_from_0_to_1(r: jax.Array) -> jax.Array:
    return 1 + r * _polynomial(_GROWTH_FROM_0_TO_1, r)


def _exp2(x: jax.Array) -> jax.Array:
    x = _clip(x, -127, 128)
    n = jnp.floor(x)
    return _exp2_from_0_to_1(x - n) * _power_of_2(n)


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    total = jnp.asarray(coefficients[-1], x.dtype)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _by_platform(native: Callable[[jax.Array], Any], own: Callable[[jax.Array], Any]) -> Callable[..., Any]:
    def function(x: jax.Array) -> Any:
        is_single = x.dtype == jnp.float32
        return jax.lax.platform_dependent(x, tpu=native, default=own) if is_single else native(x)

    return function


def _native_exp2_and_growth(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.exp2(x), jnp.expm1(x * math.log(2))


# log2(x), for x that are positive and normal, infinite or nan; log2(1 + s), for s from -1.
log2 = _by_platform(jnp.log2, _log2)
log2_1p = _by_platform(lambda s: jnp.log1p(s) / math.log(2), _log2_1p)
# 2^x, and 2^x - 1 without cancellation.
exp2_and_growth = _by_platform(_native_exp2_and_growth, _exp2_and_growth)
_log2_near_1 = _by_platform(jnp.log2, lambda m: _log2_1p_near_0(m - 1))
# 2^r, finite, for r from 0 to 1; approximate and large beyond.
_exp2_of_fraction = _by_platform(lambda r: jnp.exp2(jnp.minimum(r, 127)), _exp2_from_0_to_1)
exp2 = _by_platform(jnp.exp2, _exp2)
