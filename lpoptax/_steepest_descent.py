"""Steepest descent in the lp norm, with its global factor."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check_non_negative, check_p, evaluate
from lpoptax._precision import cast_like, factor
from lpoptax._scaling import clipped, exponent_of, scale_of, scaled_power, sum_of_powers


class ScaleByLpSteepestDescentState(NamedTuple):
    """State of :func:`scale_by_lp_steepest_descent`."""

    #: shape=(), dtype=jnp.int32.
    count: jax.Array  # type: ignore[assignment]


def scale_by_lp_steepest_descent(
    p: optax.ScalarOrSchedule, eps: ArrayLike = 1e-8, *, per_leaf: bool = False
) -> optax.GradientTransformation:
    r"""Turns the gradient into the direction and length of steepest descent in the lp norm.

    .. math::

        u = \|g\|_q^\rho \, \frac{g}{(|g| + \epsilon)^\rho}, \qquad
        q = \frac{p}{p - 1}, \quad \rho = 1 - \frac{1}{p - 1}

    The norm runs over the whole tree, or over each leaf by itself. With ``eps = 0``,
    :math:`\theta - \eta u` is the minimiser of :math:`\langle \eta g, \theta' - \theta \rangle +
    \frac12 \|\theta' - \theta\|_p^2`: the step has length :math:`\|u\|_p = \|g\|_q` and attains
    the dual norm, :math:`\langle g, u \rangle = \|g\|_q^2`. Then, unlike with
    :func:`lpoptax.scale_by_lp_power`, which leaves the factor out, u is linear in the scale
    of g.

    The norm is computed in at least float32. For p >= 2 it is a plain sum, so that a step
    over sharded leaves communicates once, a scalar for each leaf; the sum of
    :math:`|g|^q` must be in the range of floats, as with :func:`optax.global_norm` (which
    it is in float32 for coordinates from 1e-15 to 1e15). For p < 2, where q is
    large, the largest coordinate is divided out first, which is a second reduction and
    allows any scale. A zero gradient gives a zero update.

    Args:
        p: the norm, 1 < p <= infinity; a number, a traced scalar, or a schedule that maps
            the step (an int32 scalar, 0 at the first update) to one.
        eps: smoothing near zero, non-negative scalar; default 1e-8.
        per_leaf: whether each leaf is a space of its own, with its own norm; default False, the
            whole tree is one.

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
        updates = (
            jax.tree.map(lambda leaf: steepest_descent(leaf, current_p, eps), updates)
            if per_leaf
            else steepest_descent(updates, current_p, eps)
        )
        return updates, ScaleByLpSteepestDescentState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init_fn, update_fn)


def steepest_descent(updates: optax.Updates, p: ArrayLike, eps: ArrayLike) -> optax.Updates:
    """Returns the step of steepest descent; all leaves are one space."""
    leaves, structure = jax.tree.flatten(updates)
    if not leaves:
        return updates
    return jax.tree.unflatten(structure, _steepest_descent(leaves, *exponent_of(p, leaves), eps=eps))


# Compiled: else the branch in it would be compiled at each call from Python.
@functools.partial(jax.jit, static_argnames="below_2")
def _steepest_descent(
    leaves: list[ArrayLike], exponent: jax.Array, below_2: bool | None, eps: ArrayLike
) -> list[jax.Array]:
    # The step is linear in the scale of the gradient, so it may be taken at another scale.
    scale = scale_of(leaves, exponent, below_2)
    relative, powers = scaled_power(leaves, exponent, eps, scale)
    # The norm to the power of rho.
    norm = clipped(sum_of_powers(relative, 1 + exponent)) ** ((1 - exponent) / (1 + exponent))
    return [
        cast_like(u * factor(norm, u) * factor(scale, u), leaf)
        for u, leaf in zip(powers, leaves, strict=True)
    ]
