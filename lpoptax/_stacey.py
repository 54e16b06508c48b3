"""STACEY: accelerated descent in an lp norm."""

import optax
from jax.typing import ArrayLike, DTypeLike

from lpoptax._coupling import stacey_coupling
from lpoptax._hyperparameters import check_finite_p, check_learning_rate
from lpoptax._mirror_descent import mirror_descent
from lpoptax._momentum import scale_by_interpolated_momentum
from lpoptax._power import scale_by_lp_power
from lpoptax._weight_decay import decoupled_weight_decay


def stacey(
    learning_rate: optax.ScalarOrSchedule,
    p: optax.ScalarOrSchedule,
    mirror_p: optax.ScalarOrSchedule = 2.0,
    alpha: optax.ScalarOrSchedule = 0.01,
    tau: ArrayLike = 0.001,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    *,
    weight_decay_mask: optax.MaskOrFn = None,
    mu_dtype: DTypeLike | None = None,
    z_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Steepest descent in the lp norm, coupled with mirror descent on a second iterate.

    .. math::

        \begin{align*}
        c &= \beta_1 m + (1 - \beta_1) g \\
        y' &= \theta - \eta \, \frac{c}{(|c| + \epsilon)^\rho}, \qquad
              \rho = 1 - \frac{1}{p - 1} \\
        z' &: \quad \mathrm{sign}(z')\,|z'|^{r-1} = \mathrm{sign}(z)\,|z|^{r-1} - \alpha c \\
        \theta' &= \tau z' + (1 - \tau) y' - \eta \lambda \theta \\
        m' &= \beta_2 m + (1 - \beta_2) g
        \end{align*}

    with r = ``mirror_p``; z starts at the parameters, m at zero. The two norms select the
    published variants:

    ============= ============= ============
    variant       ``p``         ``mirror_p``
    ============= ============= ============
    STACEY(p,2)   p             2 (default)
    STACEY(p,p)   p             p
    STACEY(2,p)   2             p
    ============= ============= ============

    With ``tau = 0``, p = infinity and ``eps = 0`` it is :func:`optax.lion`. Both norms may
    be scheduled, which neither paper does; z stays where it is when the mirror map changes.
    The length of a step depends on p, see :func:`lpoptax.lpsgd`, also for what to know
    about :func:`optax.inject_hyperparams`. There is no ``normalization`` here: the step of both
    parts would have to be normalized, and then the published ``alpha`` and ``tau`` no longer fit.
    To try it, put :func:`lpoptax.normalize_by_update_rms` into both parts of
    :func:`lpoptax.stacey_coupling`, and let ``alpha`` follow the learning rate.

    Args:
        learning_rate: eta, a scalar or a schedule of the step. It scales the primal step
            and the weight decay.
        p: the norm of the primal step, 1 < p <= infinity; a number, a traced scalar, or a
            schedule that maps the step (an int32 scalar, 0 at the first update) to one.
        mirror_p: the norm of the dual step, 1 < mirror_p < infinity, also where it
            is a schedule; default 2.
        alpha: learning rate of the dual step, a non-negative scalar or a schedule of the
            step; default 0.01.
        tau: weight of the dual iterate, a scalar in [0, 1]; default 0.001.
        b1: weight of the momentum in c, in [0, 1); default 0.9.
        b2: decay rate of the momentum, in [0, 1); default 0.99.
        eps: smoothing of the power near zero, non-negative scalar; default 1e-8.
        weight_decay: lambda, the decoupled decay rate, multiplied by the learning rate; a
            non-negative scalar or a schedule; default None, no decay.
        weight_decay_mask: a tree of bools, a prefix of the params, or a function from
            params to one, True where to decay; default None, everywhere.
        mu_dtype: dtype of the momentum; default None, that of each parameter.
        z_dtype: dtype of the dual iterate z; default None, that of each parameter. With
            parameters in half precision use float32, or steps of size ``alpha`` are lost.

    Returns:
        A :class:`optax.GradientTransformationExtraArgs`, whose ``update`` needs params.

    Raises:
        ValueError: if one of the numbers is outside its range, or if ``update`` is called without
            params.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = lpoptax.stacey(learning_rate=0.1, p=3.0, mirror_p=3.0)
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 13.21
        Objective function: 12.41
        Objective function: 11.63

    References:
        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025, Algorithms 2 to 4
    """
    check_learning_rate(learning_rate)
    check_finite_p("mirror_p", mirror_p)
    primal = optax.chain(scale_by_lp_power(p, eps), optax.scale_by_learning_rate(learning_rate))
    dual = mirror_descent(alpha, mirror_p)
    # The decay comes after the coupling, which would scale it by 1 - tau.
    return optax.chain(
        scale_by_interpolated_momentum(b1, b2, mu_dtype),
        stacey_coupling(primal, dual, tau, z_dtype=z_dtype),
        decoupled_weight_decay(weight_decay, weight_decay_mask, _negative(learning_rate)),
    )


def _negative(value: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    return (lambda count: -value(count)) if callable(value) else -value
