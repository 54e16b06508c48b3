"""The dual step of STACEY: mirror descent under a power of an lp norm."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._binary_power import exp2, exp2_and_growth, log2, log2_1p
from lpoptax._hyperparameters import check_finite_p, check_non_negative, evaluate, is_number
from lpoptax._power import finite_power, p_minus_1, quotient, signed_power
from lpoptax._precision import cast_like, factor, map_leaves, smallest_normal, widen


class MirrorDescentState(NamedTuple):
    """State of :func:`mirror_descent`."""

    #: shape=(), dtype=jnp.int32.
    count: jax.Array  # type: ignore[assignment]


def mirror_descent(
    alpha: optax.ScalarOrSchedule, p: optax.ScalarOrSchedule = 2.0
) -> optax.GradientTransformation:
    r"""Steps in the dual space that the gradient of :math:`\frac1p\|\cdot\|_p^p` leads to.

    .. math::

        w = |z|^{p-2} z - \alpha g, \qquad z' = \mathrm{sign}(w)\,|w|^{1/(p-1)}

    where z are the ``params`` of the update; it returns z' - z, so that it is an optimizer
    by itself and the dual part of :func:`lpoptax.stacey_coupling`. With p = 2 it is
    gradient descent with learning rate ``alpha``. When p is scheduled, z stays where it is
    and the map changes.

    Neither power is taken as written: in float32 :math:`|z|^{p-1}` is 1e-48 and so zero at
    p = 9 and z = 1e-6, and z' - z would lose a small step to cancellation. The logarithms of
    both terms are compared instead, and z' - z is computed as a growth of z. So in float32,
    for :math:`|z|` from 1e-8 to 1e3 and p from 1.1 to 16, z' is right to 1e-5 of the larger of
    :math:`|z|` and :math:`|z'|`, unless the two terms cancel to a tenth or less: then the
    rounding of one is as many times larger in w, as in any form. Beyond these ranges the
    logarithms are larger and round more. A subnormal :math:`\alpha g` counts as zero, and the
    step is infinite where :math:`|\alpha g|^{1/(p-1)}` is above the largest float.

    Args:
        alpha: step size in the dual space, non-negative; a number, a traced scalar, or a
            schedule of the step.
        p: the norm, 1 < p < infinity, alike a number, scalar or schedule; default 2. A
            schedule must be finite too: :func:`lpoptax.gradual_p_schedule` is not.

    Returns:
        A :class:`optax.GradientTransformation`. It includes the learning rate and the
        sign: its updates are to be added to the params, whose dtypes they have.

    Raises:
        ValueError: if ``p`` is a number not above 1 or infinite, ``alpha`` a negative
            number, or if ``update`` is called without params.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = lpoptax.mirror_descent(alpha=0.1, p=3.0)
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 12.80
        Objective function: 11.66
        Objective function: 10.59

    References:
        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025, Algorithm 3
    """
    check_finite_p("p", p)
    check_non_negative("alpha", alpha, may_be_schedule=True)

    def init_fn(params: optax.Params) -> MirrorDescentState:
        del params
        return MirrorDescentState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates, state: MirrorDescentState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MirrorDescentState]:
        if params is None:
            raise ValueError("params must be passed to update, got params=None.")
        current_alpha, current_p = evaluate(alpha, state.count), evaluate(p, state.count)
        updates = map_leaves(lambda g, z: _mirror_step(g, z, current_alpha, current_p), updates, params)
        return updates, MirrorDescentState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init_fn, update_fn)


def _mirror_step(g: jax.Array, z: jax.Array, alpha: ArrayLike, p: ArrayLike) -> jax.Array:
    """Returns z' - z in the dtype of z."""
    wide_g, wide_z = widen(g, z)
    pull = factor(alpha, wide_g) * wide_g
    if is_number(p) and p == 2:
        return cast_like(-pull, z)  # exact, and free of powers
    return cast_like(displacement(wide_z, pull, p_minus_1(p, wide_z)), z)


@jax.custom_jvp
def _displacement(z: jax.Array, pull: jax.Array, exponent: jax.Array) -> jax.Array:
    """Returns z' - z for sign(z') |z'|^exponent = sign(z) |z|^exponent - pull."""
    log_z, log_pull = exponent * _log2(z), _log2(pull)
    z_is_larger = log_z >= log_pull
    # The larger term is taken out of the difference, which leaves 1 - ratio.
    ratio = exp2(-jnp.abs(log_z - log_pull))
    turn = jnp.sign(z) * jnp.conj(jnp.sign(pull))
    inverse = 1 / exponent
    if jnp.iscomplexobj(z):
        difference = 1 - factor(ratio, z) * jnp.where(z_is_larger, jnp.conj(turn), turn)
        scaled = signed_power(difference, inverse, jnp.zeros_like(inverse))
        growth = scaled - 1
        scaled *= factor(exp2(log_pull * inverse), z)
    else:
        # A small step is a small growth, which no difference of near numbers would show. And
        # if z is the smaller term, its place in front is taken by |pull|^inverse.
        front = jnp.where(z_is_larger, 0, log_pull * inverse)
        scaled, growth = exp2_and_growth(front + log2_1p(-ratio * turn) * inverse)
    return jnp.where(z_is_larger, z * growth, -jnp.sign(pull) * scaled - z)


def _log2(x: jax.Array) -> jax.Array:
    """Returns log2 |x|, and less than of any float for what is 0 or subnormal."""
    magnitude = jnp.abs(x)
    tiny = smallest_normal(magnitude)
    is_small = magnitude < tiny
    return jnp.where(is_small, -1e30, log2(jnp.where(is_small, tiny, magnitude)))


@_displacement.defjvp
def _displacement_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Written out because bits have no derivative. With w the dual iterate, |w|^(1/exponent - 1) is
    # |z'|^(1 - exponent), which joins the powers of z into one of a ratio, of moderate size.
    z, pull, exponent = primals
    dz, dpull, dexponent = tangents
    step = _displacement(z, pull, exponent)
    moved = z + step
    size, moved_size = (jnp.maximum(jnp.abs(x), smallest_normal(jnp.abs(x))) for x in (z, moved))
    own = dz + factor(exponent - 1, z) * _along(quotient(z, size), dz)
    own += z * factor(jnp.log(size) * dexponent, z)
    dual = factor(finite_power(quotient(size, moved_size), exponent - 1), z) * own
    dual -= factor(finite_power(moved_size, 1 - exponent), z) * dpull
    radial = factor(1 / exponent - 1, z) * _along(quotient(moved, moved_size), dual)
    return step, dual + radial - moved * factor(jnp.log(moved_size) * dexponent / exponent, z) - dz


# Inside a larger program all leaves of a shape share one trace of it.
displacement = jax.jit(_displacement)


def _along(direction: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the part of x in a direction."""
    return direction * factor(jnp.real(jnp.conj(direction) * x), direction)
