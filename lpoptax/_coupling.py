"""The linear coupling of a primal and a dual optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from lpoptax._hyperparameters import check
from lpoptax._precision import cast_like, factor, map_leaves, widen


class StaceyCouplingState(NamedTuple):
    """State of :func:`stacey_coupling`."""

    z: optax.Params  #: the dual iterate; shapes of params, dtype=z_dtype or that of params.
    primal_state: optax.OptState  #: of ``primal``, at the params.
    dual_state: optax.OptState  #: of ``dual``, at z.


def stacey_coupling(
    primal: optax.GradientTransformation,
    dual: optax.GradientTransformation,
    tau: ArrayLike,
    *,
    z_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Couples an optimizer that steps at the params with one that has its own iterate z.

    .. math::

        y' = \theta + \mathrm{primal}(g, \theta), \qquad
        z' = z + \mathrm{dual}(g, z), \qquad
        \theta' = \tau z' + (1 - \tau) y'

    z starts at the parameters. Both parts see the same gradients; ``dual`` is given z
    as its params. Both are complete optimizers, learning rate and sign included. What is
    emitted is :math:`\theta' - \theta`, so links after it in a chain, such as a decoupled
    weight decay, act on the parameters as usual and leave z alone.

    Args:
        primal: any transformation; for STACEY the lp power map and a learning rate.
        dual: any transformation; for STACEY :func:`lpoptax.mirror_descent`.
        tau: weight of the dual iterate, a scalar in [0, 1]. With 0 only ``primal`` acts.
        z_dtype: dtype of z; default None, that of each parameter.

    Returns:
        A :class:`optax.GradientTransformationExtraArgs`, which passes extra arguments on
        to both parts. Updates keep the shapes and dtypes that ``primal`` gives them.

    Raises:
        ValueError: if ``tau`` is a number outside [0, 1], or if ``update`` is called
            without params.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = lpoptax.stacey_coupling(
        ...     primal=optax.adamw(0.1), dual=lpoptax.mirror_descent(alpha=0.1), tau=0.2
        ... )
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 12.00
        Objective function: 9.64
        Objective function: 7.26

    References:
        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025

        Allen-Zhu and Orecchia, `Linear Coupling: An Ultimate Unification of Gradient and
        Mirror Descent <https://arxiv.org/abs/1407.1537>`_, 2017
    """
    check("tau", tau, lambda v: 0 <= v <= 1, "between 0 and 1")
    primal = optax.with_extra_args_support(primal)
    dual = optax.with_extra_args_support(dual)

    def init_fn(params: optax.Params) -> StaceyCouplingState:
        z = jax.tree.map(lambda theta: _copy(theta, z_dtype), params)
        return StaceyCouplingState(z=z, primal_state=primal.init(params), dual_state=dual.init(z))

    def update_fn(
        updates: optax.Updates,
        state: StaceyCouplingState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StaceyCouplingState]:
        if params is None:
            raise ValueError("params must be passed to update, got params=None.")
        primal_updates, primal_state = primal.update(updates, state.primal_state, params, **extra_args)
        dual_updates, dual_state = dual.update(updates, state.dual_state, state.z, **extra_args)
        z = jax.tree.map(_move, dual_updates, state.z, is_leaf=lambda leaf: leaf is None)
        coupled = map_leaves(lambda u, new_z, theta: _couple(u, new_z, theta, tau), primal_updates, z, params)
        return coupled, StaceyCouplingState(z=z, primal_state=primal_state, dual_state=dual_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _copy(leaf: Any, dtype: DTypeLike | None) -> Any:
    # A real copy, or params and state could not be donated together; an abstract leaf
    # has no buffer to copy.
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf if dtype is None else jax.eval_shape(lambda x: x.astype(dtype), leaf)
    return jnp.array(leaf, dtype=dtype, copy=True)


def _move(update: jax.Array | None, z: jax.Array) -> jax.Array:
    if update is None:
        return z
    wide_update, wide_z = widen(update, z)
    return cast_like(wide_z + wide_update, z)


def _couple(u: jax.Array, z: jax.Array, theta: jax.Array, tau: ArrayLike) -> jax.Array:
    wide_u, z, theta = widen(u, z, theta)
    weight = factor(tau, theta)
    # Without weight z is free to overflow.
    pull = jnp.where(weight == 0, 0, weight * (z - theta))
    return cast_like(pull + (1 - weight) * wide_u, u)
