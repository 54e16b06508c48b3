"""Schedules of the norm p, to be used wherever a transformation takes `p`."""

import math

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check, check_finite_p, check_steps, is_number


def cosine_p_schedule(
    p_max: ArrayLike,
    total_steps: int,
    *,
    p_final: ArrayLike = 2.0,
    steps_per_epoch: int = 1,
) -> optax.Schedule:
    r"""Anneals p from ``p_max`` to ``p_final`` along half a cosine.

    .. math::

        p_s = p_\mathrm{final} + (p_\max - p_\mathrm{final})
              \frac{1 + \cos(\pi (s - 1)/(S - 1))}{2}, \qquad s = 1, \dots, S

    By default s counts optimizer steps, so S = ``total_steps``. With ``steps_per_epoch``
    it counts epochs, as in the paper: p is constant during an epoch, the first epoch
    runs at ``p_max``, the last (which may be shorter) at ``p_final``. After S epochs p stays
    at ``p_final``. With S = 1 the single step or epoch runs at ``p_max``.

    Args:
        p_max: p of the first step, finite, at least ``p_final``.
        total_steps: number of optimizer steps, at least 1.
        p_final: p of the last step and after, above 1; default 2.
        steps_per_epoch: optimizer steps that share one p, at least 1; default 1.

    Returns:
        A schedule: it maps the step (int, or integer array of any shape, 0 at the first
        update) to p, in the default float dtype.

    Raises:
        ValueError: if ``p_final`` is not above 1, ``p_max`` is below it or infinite, or a
            number of steps is not a whole number of at least 1.

    Examples:
        >>> import lpoptax
        >>> p = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=5)
        >>> [round(float(p(step)), 2) for step in range(7)]
        [6.0, 5.41, 4.0, 2.59, 2.0, 2.0, 2.0]
        >>> p = lpoptax.cosine_p_schedule(p_max=6.0, total_steps=6, steps_per_epoch=2)
        >>> [float(p(step)) for step in range(7)]
        [6.0, 6.0, 4.0, 4.0, 2.0, 2.0, 2.0]

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026, eq. 19
    """
    check_finite_p("p_final", p_final, may_be_schedule=False)
    check("p_max", p_max, math.isfinite, "finite (for a start at infinity use gradual_p_schedule)")
    if is_number(p_final):
        check("p_max", p_max, lambda v: v >= p_final, f"at least p_final={p_final}")
    check_steps("total_steps", total_steps)
    check_steps("steps_per_epoch", steps_per_epoch)
    # max: one single epoch has no way to go, and must not divide by zero.
    last_epoch = max(math.ceil(total_steps / steps_per_epoch) - 1, 1)

    def schedule(count: ArrayLike) -> ArrayLike:
        epoch = jnp.asarray(count) // steps_per_epoch
        fraction = jnp.minimum(epoch, last_epoch).astype(float) / last_epoch
        weight = (1 + jnp.cos(jnp.pi * fraction)) / 2
        return p_final + (jnp.asarray(p_max) - p_final) * weight

    return schedule


def gradual_p_schedule(total_steps: int) -> optax.Schedule:
    r"""Lowers p from infinity to 2, so that the update moves from the sign to the gradient.

    .. math::

        p_t = 1 + \frac{T}{t - 1}, \qquad \text{so that} \qquad
        u = \mathrm{sign}(g)\,|g|^{(t - 1)/T}, \qquad t = 1, 2, \dots

    With T = ``total_steps``; past the end p stays at 2. :func:`lpoptax.lpsgd` with this
    schedule is the GSGD method.

    Args:
        total_steps: number of optimizer steps T, at least 1.

    Returns:
        A schedule: it maps the step (int, or integer array of any shape, 0 at the first
        update) to p, in the default float dtype.

    Raises:
        ValueError: if ``total_steps`` is not a whole number of at least 1.

    Examples:
        >>> import lpoptax
        >>> p = lpoptax.gradual_p_schedule(total_steps=4)
        >>> [round(float(p(step)), 2) for step in range(6)]
        [inf, 5.0, 3.0, 2.33, 2.0, 2.0]

    References:
        Yuan, Jiachen and Nie (GSGD), as described in Xu and Yang, `Beyond l2-norm and
        l-infinity-norm: A Curvature-Inspired lp-Norm Scheme for Deep Neural Networks
        <https://arxiv.org/abs/2606.02078>`_, 2026, Remark 1.2
    """
    check_steps("total_steps", total_steps)

    def schedule(count: ArrayLike) -> ArrayLike:
        elapsed = jnp.minimum(count, total_steps).astype(float)
        # The inner maximum keeps the unused branch from dividing by zero.
        return jnp.where(elapsed == 0, jnp.inf, 1 + total_steps / jnp.maximum(elapsed, 1))

    return schedule
