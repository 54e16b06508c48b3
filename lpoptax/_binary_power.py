"""Powers by way of the binary logarithm, in float32 as some forty multiplications and additions.

XLA's CPU backend calls a scalar function for each power, which would take longer than all
else in a step. These take the exponent of x out of its bits and a polynomial for the rest, which
compiles to vector instructions. All platforms share the form: where memory is slower than arithmetic
it costs nothing, and results are alike. Other dtypes take XLA's own functions.
"""

import jax
import jax.numpy as jnp

_BITS_OF_SQRT_HALF, _BITS_OF_INFINITY = 0x3F3504F3, 0x7F800000
_FRACTION_BITS = 23
# In a sum with 1.5 * 2^23 the last bits are those of the nearest whole number.
_SHIFT, _BITS_OF_SHIFT = 1.5 * 2**23, 0x4B400000
# Minimax polynomials for log2(1 + t) / t on [sqrt(1/2) - 1, sqrt(2) - 1], to 6e-8 in log2(1 + t),
# and (2^r - 1) / r on [-1/2, 1/2], to 1.4e-7 in 2^r.
_LOG2 = (1.4426948, -0.72135717, 0.48093945, -0.36008722, 0.28670746, -0.25006902, 0.23689039, -0.1457445)
_EXP2 = (0.693147, 0.24022242, 0.055507336, 0.009671513, 0.0013264727)


def power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """Returns x^exponent, for x that are positive and normal: to 3e-7 if the exponent is from 0 to 1."""
    if x.dtype != jnp.float32:
        return x**exponent
    # In one float the logarithm of 1e-38 would be wrong by 1e-6, so it is kept in two parts. With twelve
    # bits of the exponent the product with the whole part has no more than a float holds.
    k, t = _split(x)
    coarse = _from_bits(_to_bits(exponent) & ~0xFFF)
    exact, rest = coarse * k, (exponent - coarse) * k + exponent * (t * _polynomial(_LOG2, t))
    log = exact + rest
    nearest = _nearest(log)
    return _scaled(1 + _exp2_minus_1((exact - nearest.astype(x.dtype)) + rest), nearest, log)


def log2(x: jax.Array) -> jax.Array:
    """Returns log2(x), for x that are positive and normal, infinite or nan."""
    if x.dtype != jnp.float32:
        return jnp.log2(x)
    k, t = _split(x)
    return jnp.where(x < jnp.inf, k + t * _polynomial(_LOG2, t), x)


def log2_1p(s: jax.Array) -> jax.Array:
    """Returns log2(1 + s), for s from -1."""
    if s.dtype != jnp.float32:
        return jnp.log1p(s) / jnp.log(jnp.asarray(2, s.dtype))
    k, t = _split(1 + s)
    t = jnp.where(k == 0, s, t)  # 1 + s is rounded.
    # Where s is nan it stays nan. No product with infinity: in an unselected branch it could be nan, too.
    return jnp.where(s > -1, k + t * _polynomial(_LOG2, t), jnp.where(s == -1, -jnp.inf, s))


def exp2_and_growth(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns 2^x, and 2^x - 1 without cancellation."""
    if x.dtype != jnp.float32:
        return jnp.exp2(x), jnp.expm1(x * jnp.log(jnp.asarray(2, x.dtype)))
    nearest = _nearest(x)
    growth = _exp2_minus_1(x - nearest.astype(x.dtype))
    factor = _scaled(1 + growth, nearest, x)
    return factor, jnp.where(nearest == 0, growth, factor - 1)


def _split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns k and t of x = 2^k (1 + t), where 1 + t is from sqrt(1/2) to sqrt(2)."""
    bits = _to_bits(x)
    k = (bits - _BITS_OF_SQRT_HALF) >> _FRACTION_BITS
    return k.astype(x.dtype), _from_bits(bits - (k << _FRACTION_BITS)) - 1


def _nearest(x: jax.Array) -> jax.Array:
    """Returns the nearest whole number to x, for x up to 2^22; XLA's own conversion costs more."""
    return _to_bits(x + jnp.float32(_SHIFT)) - _BITS_OF_SHIFT


def _exp2_minus_1(r: jax.Array) -> jax.Array:
    return r * _polynomial(_EXP2, r)


def _scaled(fraction: jax.Array, k: jax.Array, log: jax.Array) -> jax.Array:
    """Returns 2^log, which is 2^k times the fraction: 0 or infinity where that is no normal number."""
    limits = jnp.finfo(log.dtype)  # type: ignore[no-untyped-call]
    # Near the largest number the logarithm is rounded to 128 on both sides; beyond, bits are of nan.
    scaled = _from_bits(jnp.minimum(_to_bits(fraction) + (k << _FRACTION_BITS), _BITS_OF_INFINITY))
    # Of a nan logarithm all comparisons are false, so the result is the logarithm itself: nan.
    beyond = jnp.where(log > limits.maxexp, jnp.inf, log)
    return jnp.where(log < limits.minexp, 0, jnp.where(log <= limits.maxexp, scaled, beyond))


def _polynomial(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    total = jnp.asarray(coefficients[-1], x.dtype)
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + jnp.asarray(coefficient, x.dtype)
    return total


def _to_bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _from_bits(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
