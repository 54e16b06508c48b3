"""The power map: its numerics, and the transformation that applies it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._binary_power import power_factors
from lpoptax._hyperparameters import check_non_negative, check_p, evaluate, is_number
from lpoptax._precision import cast_like, factor, largest_finite, scalar, smallest_normal, widen


def p_minus_1(p: ArrayLike, like: jax.Array) -> jax.Array:
    """Returns p - 1 in the real dtype of `like`."""
    # For a plain number in double precision: the difference cancels near p = 1.
    return scalar(float(p) - 1 if is_number(p) else scalar(p, like) - 1, like)


def inverse_p_minus_1(p: ArrayLike, like: jax.Array) -> jax.Array:
    """Returns 1 / (p - 1) in the real dtype of `like`."""
    # Rounded once: at |x| = 1e-38 the power has 87 times the error of its exponent.
    return scalar(1 / (float(p) - 1), like) if is_number(p) else 1 / p_minus_1(p, like)


def lp_power(x: ArrayLike, p: ArrayLike, eps: ArrayLike = 1e-8) -> jax.Array:
    r"""Maps each coordinate to the direction of steepest descent in the :math:`\ell_p` norm.

    .. math::

        u = \frac{x}{(|x| + \epsilon)^\rho}, \qquad \rho = 1 - \frac{1}{p - 1}

    Epsilon stands inside the power as in the LPSGDM paper and the public code of the Stacey
    authors; the text of the Stacey paper has :math:`x / (|x|^\rho + \epsilon)`.

    With ``eps = 0`` this is :math:`\mathrm{sign}(x)\,|x|^{1/(p-1)}`: the identity at
    p = 2 (bit for bit, whatever ``eps``) and the sign at p = infinity. For p > 2 small
    coordinates are amplified, for 1 < p < 2 large ones are. Zero maps to zero. Complex
    numbers keep their phase.

    The map is computed in at least float32 and returned in the dtype of ``x``. In float32 the
    relative error is below 3e-6 over all normal numbers, and below 1e-6 for :math:`|x|` from 1e-8 to
    100, if p is at least 2; for smaller p it is below 7e-6 + 1e-7/(p-1), and p - 1 counts as
    2e-6 if it is less. Most of it is the rounding of the exponent. No finite real ``x`` gives nan,
    an infinite one does unless p = 2;
    for p < 2 the result overflows to infinity where the exact value does. Subnormal magnitudes
    may be flushed to zero, as XLA does on CPU. The map is differentiable in ``x``, ``p`` and
    ``eps``; with ``eps = 0`` the slope at zero is that of the chord to the smallest normal
    number.

    Args:
        x: array of any shape, real or complex floating dtype (integers become float32).
        p: the norm, 1 < p <= infinity; a number or an array that broadcasts with ``x``.
        eps: smoothing near zero, non-negative, in the units of ``x``; default 1e-8.

    Returns:
        An array with the dtype of ``x`` and its shape, broadcast with that of ``p``.

    Raises:
        ValueError: if ``p`` is a number not above 1, or ``eps`` a negative one.

    Examples:
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> g = jnp.array([4.0, -0.25, 0.0])
        >>> for p in (2.0, 3.0, jnp.inf):
        ...     print(lpoptax.lp_power(g, p))
        [ 4.   -0.25  0.  ]
        [ 2.  -0.5  0. ]
        [ 1. -1.  0.]

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026, eq. 21
    """
    if not getattr(p, "ndim", 0):
        check_p("p", p, may_be_schedule=False)
    check_non_negative("eps", eps)
    (wide,) = widen(x)
    return cast_like(signed_power(wide, inverse_p_minus_1(p, wide), scalar(eps, wide)), x)


def _magnitude(x: jax.Array, eps: jax.Array) -> jax.Array:
    # The floor stands in for eps = 0, so that x = 0 is divided by something.
    magnitude = jnp.abs(x) + eps
    tiny = smallest_normal(magnitude)
    return jnp.where(magnitude < tiny, tiny, magnitude)


@jax.custom_jvp
def _signed_power(x: jax.Array, exponent: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns x / (|x| + eps)^(1 - exponent), which is sign(x) |x|^exponent for eps = 0.

    Computed as (x / magnitude) * magnitude^exponent: unlike the form above this is finite
    for every x when exponent <= 1, and is the sign exactly when exponent = 0.
    """
    magnitude = _magnitude(x, eps)
    # One after the other, since their product may overflow: times a quotient of 0 it would be nan. (The
    # quotient itself is used once: XLA would store one that is used twice.) An infinite x does give nan.
    first, second = power_factors(magnitude, exponent)
    scaled = x / factor(magnitude, x) * factor(first, x) * factor(second, x)
    return jnp.where(exponent == 1, x, scaled)


@_signed_power.defjvp
def _signed_power_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Written out because the derivative of x / magnitude squares the magnitude, which
    # underflows to nan long before the derivative itself leaves the range of floats.
    x, exponent, eps = primals
    dx, dexponent, deps = tangents
    u = _signed_power(x, exponent, eps)
    magnitude = jnp.abs(x) + eps
    tiny = jnp.full_like(magnitude, smallest_normal(magnitude))
    # Below it the map is linear. What is not selected must be finite, in second derivatives too.
    is_linear = magnitude < tiny
    magnitude = jnp.where(is_linear, 1, magnitude)
    chord = jax.lax.stop_gradient(tiny ** (exponent - 1))
    slope = jnp.where(is_linear, chord, finite_power(magnitude, exponent - 1))
    radial = factor(1 - exponent, x) * quotient(x, magnitude)
    dmagnitude = jnp.real(jnp.conj(jnp.sign(x)) * dx) + deps
    tangent = factor(slope, x) * (dx - radial * factor(dmagnitude, x))
    return u, tangent + u * factor(jnp.log(magnitude) * dexponent, x)


@jax.custom_jvp
def quotient(x: jax.Array, magnitude: jax.Array) -> jax.Array:
    """Returns x / magnitude. No derivative of any order squares the magnitude."""
    return x / factor(magnitude, x)


@quotient.defjvp
def _quotient_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, magnitude), (dx, dmagnitude) = primals, tangents
    ratio = quotient(x, magnitude)
    return ratio, quotient(dx - ratio * factor(dmagnitude, x), magnitude)


@jax.custom_jvp
def finite_power(magnitude: jax.Array, exponent: jax.Array) -> jax.Array:
    """Returns magnitude^exponent, and the largest float where it or a derivative of it is larger."""
    # Finite, so that its product with a derivative of 0 is 0.
    return jnp.minimum(magnitude**exponent, largest_finite(magnitude))


@finite_power.defjvp
def _finite_power_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (magnitude, exponent), (dmagnitude, dexponent) = primals, tangents
    u = finite_power(magnitude, exponent)
    slope = exponent * finite_power(magnitude, exponent - 1)
    return u, slope * dmagnitude + u * jnp.log(magnitude) * dexponent


# Inside a larger program all leaves of a shape share one trace of it.
signed_power = jax.jit(_signed_power)


class ScaleByLpPowerState(NamedTuple):
    """State of :func:`scale_by_lp_power`."""

    #: shape=(), dtype=jnp.int32.
    count: jax.Array  # type: ignore[assignment]


def scale_by_lp_power(p: optax.ScalarOrSchedule, eps: ArrayLike = 1e-8) -> optax.GradientTransformation:
    r"""Applies the power map of :func:`lp_power` to every leaf of the updates.

    .. math::

        u = \frac{g}{(|g| + \epsilon)^\rho}, \qquad \rho = 1 - \frac{1}{p - 1}

    Put it after a momentum and before weight decay and the learning rate, as
    :func:`lpoptax.lpsgdm` does. Coordinates are independent: no leaf is reduced, and
    sharded leaves need no communication.

    Args:
        p: the norm, 1 < p <= infinity; a number, a traced scalar, or a schedule that maps
            the step (an int32 scalar, 0 at the first update) to one.
        eps: smoothing near zero, non-negative scalar; default 1e-8.

    Returns:
        A :class:`optax.GradientTransformation`. Updates keep their shapes and dtypes.

    Raises:
        ValueError: if ``p`` is a number not above 1, or ``eps`` a negative one.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = optax.chain(lpoptax.scale_by_lp_power(p=3.0), optax.scale(-0.1))
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 11.57
        Objective function: 9.47
        Objective function: 7.69

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026

        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025
    """
    check_p("p", p)
    check_non_negative("eps", eps)

    def update_fn(
        updates: optax.Updates, state: ScaleByLpPowerState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleByLpPowerState]:
        del params
        current_p = evaluate(p, state.count)
        updates = jax.tree.map(lambda g: lp_power(g, current_p, eps), updates)
        return updates, ScaleByLpPowerState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init_count, update_fn)


def init_count(params: optax.Params) -> ScaleByLpPowerState:
    """Returns the state before the first step."""
    del params
    return ScaleByLpPowerState(count=jnp.zeros([], jnp.int32))
