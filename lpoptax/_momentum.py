"""The two-rate momentum that STACEY shares with Lion."""

from typing import NamedTuple

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from lpoptax._hyperparameters import check_decay_rate, is_number
from lpoptax._precision import cast_like, factor, map_leaves, widen


class ScaleByInterpolatedMomentumState(NamedTuple):
    """State of :func:`scale_by_interpolated_momentum`."""

    mu: optax.Updates  #: shapes of params, dtype=mu_dtype or that of params.


def scale_by_interpolated_momentum(
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    r"""Emits one average of momentum and gradient, and remembers another.

    .. math::

        c = \beta_1 m + (1 - \beta_1) g, \qquad m \leftarrow \beta_2 m + (1 - \beta_2) g

    The emitted c uses the momentum from before the step; m starts at zero and is not
    bias-corrected. Followed by the sign this is Lion. With ``b1 = b2`` it emits the new
    momentum: :func:`optax.ema` with ``debias=False``, except that the updates keep the
    dtype of the gradients and the state its own.

    Args:
        b1: weight of the momentum in what is emitted, in [0, 1); default 0.9.
        b2: decay rate of the momentum, in [0, 1); default 0.99.
        mu_dtype: dtype of the momentum; default None, that of each parameter.

    Returns:
        A :class:`optax.GradientTransformation`. Updates keep their shapes and dtypes.

    Raises:
        ValueError: if ``b1`` or ``b2`` is a number outside [0, 1).

    Examples:
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> momentum = lpoptax.scale_by_interpolated_momentum(b1=0.5, b2=0.75)
        >>> state = momentum.init(jnp.zeros(2))
        >>> for _ in range(3):
        ...     updates, state = momentum.update(jnp.array([1.0, -2.0]), state)
        ...     print(updates, state.mu)
        [ 0.5 -1. ] [ 0.25 -0.5 ]
        [ 0.625 -1.25 ] [ 0.4375 -0.875 ]
        [ 0.71875 -1.4375 ] [ 0.578125 -1.15625 ]

    References:
        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025

        Chen et al, `Symbolic Discovery of Optimization Algorithms
        <https://arxiv.org/abs/2302.06675>`_, 2023
    """
    check_decay_rate("b1", b1)
    check_decay_rate("b2", b2)

    def init_fn(params: optax.Params) -> ScaleByInterpolatedMomentumState:
        return ScaleByInterpolatedMomentumState(mu=optax.tree.zeros_like(params, dtype=mu_dtype))

    def update_fn(
        updates: optax.Updates,
        state: ScaleByInterpolatedMomentumState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScaleByInterpolatedMomentumState]:
        del params
        averages = map_leaves(lambda g, m: _average(g, m, b2), updates, state.mu)
        emitted = map_leaves(
            lambda g, m, new: cast_like(_emitted(g, m, new, b1, b2), g), updates, state.mu, averages
        )
        # The momentum of a leaf without a gradient stays.
        mu = jax.tree.map(
            lambda new, m: m if new is None else cast_like(new, m),
            averages,
            state.mu,
            is_leaf=lambda leaf: leaf is None,
        )
        return emitted, ScaleByInterpolatedMomentumState(mu=mu)

    return optax.GradientTransformation(init_fn, update_fn)


def _emitted(g: jax.Array, m: jax.Array, new: jax.Array, b1: ArrayLike, b2: ArrayLike) -> jax.Array:
    """Returns the average with weight b1, of the old momentum or, but for rounding, of the new one."""
    # The new one takes the place of the old one: what reads the old one makes XLA copy it first.
    if b1 is b2:  # traced ones, too.
        return new
    if is_number(b1) and is_number(b2) and b1 <= b2 > 0:
        return new if b1 == b2 else _average(g, new, b1 / b2)
    return _average(g, m, b1)


def _average(g: jax.Array, m: jax.Array, decay: ArrayLike) -> jax.Array:
    g, m = widen(g, m)
    return factor(1.0 - decay, m) * g + factor(decay, m) * m
