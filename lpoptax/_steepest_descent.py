"""Steepest descent in the lp norm, with its global factor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check_non_negative, check_p, evaluate
from lpoptax._power import lp_power, p_minus_1
from lpoptax._precision import cast_like, scalar, widen


class ScaleByLpSteepestDescentState(NamedTuple):
    """State of :func:`scale_by_lp_steepest_descent`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=jnp.int32.


def scale_by_lp_steepest_descent(
    p: optax.ScalarOrSchedule, eps: ArrayLike = 1e-8
) -> optax.GradientTransformation:
    r"""Turns the gradient into the direction and length of steepest descent in the lp norm.

    .. math::

        u = \|g\|_q^\rho \, \frac{g}{(|g| + \epsilon)^\rho}, \qquad
        q = \frac{p}{p - 1}, \quad \rho = 1 - \frac{1}{p - 1}

    The norm runs over the whole tree. With ``eps = 0``, :math:`\theta - \eta u` is the
    minimiser of :math:`\langle \eta g, \theta' - \theta \rangle + \frac12 \|\theta' -
    \theta\|_p^2`: the step has length :math:`\|u\|_p = \|g\|_q` and attains the dual norm,
    :math:`\langle g, u \rangle = \|g\|_q^2`. Unlike :func:`lpoptax.scale_by_lp_power`,
    which leaves the factor out, u is linear in the scale of g.

    The norm is computed in at least float32, relative to the largest coordinate, so that
    no scale of the gradient is too small or too large. A zero gradient gives a zero update.

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
        >>> solver = optax.chain(
        ...     lpoptax.scale_by_lp_steepest_descent(p=jnp.inf), optax.scale(-0.1)
        ... )
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 3.92
        Objective function: 1.72
        Objective function: 0.78

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026, eq. 10
    """
    check_p("p", p)
    check_non_negative("eps", eps)

    def init_fn(params: optax.Params) -> ScaleByLpSteepestDescentState:
        del params
        return ScaleByLpSteepestDescentState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: ScaleByLpSteepestDescentState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScaleByLpSteepestDescentState]:
        del params
        current_p = evaluate(p, state.count)
        updates = _steepest_descent(updates, current_p, eps)
        return updates, ScaleByLpSteepestDescentState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init_fn, update_fn)


def _steepest_descent(updates: optax.Updates, p: ArrayLike, eps: ArrayLike) -> optax.Updates:
    leaves, structure = jax.tree.flatten(updates)
    if not leaves:
        return updates
    wide = [widen(leaf)[0] for leaf in leaves]
    largest = jnp.stack(widen(*(jnp.max(jnp.abs(g), initial=0) for g in wide))).max()
    # The reciprocal of the largest floats is subnormal, so the scale stays below them.
    shrink = jnp.where(largest > 2.0**120, 2.0**-8, 1.0).astype(largest.dtype)
    unit = jnp.where(largest == 0, 1, largest * shrink)
    # Products: XLA would merge two quotients in a row, with a subnormal denominator.
    inverse = 1 / unit
    relative = [g * scalar(shrink, g) * scalar(inverse, g) for g in wide]
    # The step is linear in the scale of the gradient, so it is taken from coordinates of
    # at most 1, where no power under- or overflows that matters, and scaled back.
    exponent = 1 / p_minus_1(p, largest)
    norm = jnp.where(largest == 0, 1, _norm(relative, 1 + exponent))
    factor = norm ** (1 - exponent)

    def step(g: jax.Array) -> jax.Array:
        u = lp_power(g, p, scalar(eps, g) * scalar(shrink, g) * scalar(inverse, g))
        return u * scalar(factor, g) * scalar(unit, g) / scalar(shrink, g)

    steps = [cast_like(step(g), leaf) for g, leaf in zip(relative, leaves, strict=True)]
    return jax.tree.unflatten(structure, steps)


def _norm(leaves: list[jax.Array], q: jax.Array) -> jax.Array:
    """Returns the norm of exponent q over all leaves together."""
    totals = widen(*(jnp.sum(jnp.abs(leaf) ** scalar(q, leaf)) for leaf in leaves))
    return jnp.stack(totals).sum() ** (1 / q)
