"""LPSGD and LPSGDM: gradient descent in the geometry of an lp norm."""

import optax
from jax.typing import ArrayLike, DTypeLike

from lpoptax._hyperparameters import check_decay_rate, check_learning_rate
from lpoptax._momentum import scale_by_interpolated_momentum
from lpoptax._normalization import Normalization, lp_direction
from lpoptax._weight_decay import decoupled_weight_decay


def lpsgd(
    learning_rate: optax.ScalarOrSchedule,
    p: optax.ScalarOrSchedule,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    *,
    weight_decay_mask: optax.MaskOrFn = None,
    normalization: Normalization | None = None,
    per_leaf: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent in the lp norm, without momentum.

    .. math::

        \theta \leftarrow (1 - \eta \lambda) \theta
                          - \eta \frac{g}{(|g| + \epsilon)^\rho}, \qquad
        \rho = 1 - \frac{1}{p - 1}

    What p is makes it one of three published methods: with
    :func:`lpoptax.cosine_p_schedule` LPSGD, with a number stochastic lp descent, with
    :func:`lpoptax.gradual_p_schedule` GSGD. p = 2 is :func:`optax.sgd`, p = infinity with
    ``eps = 0`` :func:`optax.sign_sgd`.

    The length of a step depends on p: a gradient of 1e-3 becomes 0.25 at p = 6, so the
    best learning rate differs from that of SGD, often by orders of magnitude, and a schedule of
    p is one of the length too. ``normalization`` takes that away.

    Under :func:`optax.inject_hyperparams` name ``weight_decay_mask`` (and any dtype you
    pass) in ``static_args``: it takes a function for a schedule. With parameters in half
    precision set ``hyperparam_dtype=jnp.float32``: else p, eps and the rates are rounded to
    that precision, and eps = 1e-8 is 0 in float16.

    Args:
        learning_rate: a scalar, or a schedule of the step.
        p: the norm, 1 < p <= infinity; a number, a traced scalar, or a schedule that maps
            the step (an int32 scalar, 0 at the first update) to one.
        eps: smoothing of the power near zero, non-negative scalar; default 1e-8.
        weight_decay: decoupled decay rate, multiplied by the learning rate; a
            non-negative scalar or a schedule. Default None: no decay, and ``update``
            needs no params.
        weight_decay_mask: a tree of bools, a prefix of the params, or a function from
            params to one, True where to decay; default None, everywhere.
        normalization: how long the step is, before weight decay. None (default): as published.
            "rms": its root mean square is 1, so that the learning rate is that of the
            step, see :func:`lpoptax.normalize_by_update_rms`. "dual_norm": as long as
            steepest descent makes it, in proportion to the gradient, see
            :func:`lpoptax.scale_by_lp_steepest_descent`. Both are right at any scale of the
            gradient; for p < 2 they do not use ``eps``.
        per_leaf: whether each leaf is normalized by itself; default False, all as one vector.

    Returns:
        A :class:`optax.GradientTransformationExtraArgs`.

    Raises:
        ValueError: if a hyperparameter is no number, ``p`` one not above 1, or ``eps`` or
            ``weight_decay`` a negative one, if there is no such ``normalization``, if ``per_leaf``
            is set without one, or if ``update`` is called without params where they decay.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = lpoptax.lpsgd(learning_rate=0.1, p=lpoptax.cosine_p_schedule(6.0, 3))
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 12.43
        Objective function: 10.69
        Objective function: 6.84

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026,
        Algorithm 1

        Luo et al, `Stacey: Promoting Stochastic Steepest Descent via Accelerated
        lp-Smooth Nonconvex Optimization`, ICML 2025, Algorithm 1
    """
    check_learning_rate(learning_rate)
    return optax.chain(
        lp_direction(p, eps, normalization, per_leaf),
        decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def lpsgdm(
    learning_rate: optax.ScalarOrSchedule,
    p: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    *,
    weight_decay_mask: optax.MaskOrFn = None,
    normalization: Normalization | None = None,
    per_leaf: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent in the lp norm, with momentum and decoupled weight decay.

    .. math::

        m \leftarrow \beta m + (1 - \beta) g, \qquad
        \theta \leftarrow (1 - \eta \lambda) \theta
                          - \eta \frac{m}{(|m| + \epsilon)^\rho}, \qquad
        \rho = 1 - \frac{1}{p - 1}

    The method of the paper anneals p with :func:`lpoptax.cosine_p_schedule` from a p_max
    of 6, 8 or 9 to 2; with ``normalization="rms"`` start from a p_max of 12 and a learning
    rate that peaks at 1e-3. The momentum is :func:`optax.ema` without bias correction, not
    :func:`optax.trace`: at p = 2 the learning rate that matches ``optax.sgd(eta,
    momentum=0.9)`` is 10 eta. p = infinity with ``eps = 0`` is :func:`optax.signum`.

    The length of a step depends on p, see :func:`lpoptax.lpsgd`, also for what to know
    about :func:`optax.inject_hyperparams`.

    Args:
        learning_rate: a scalar, or a schedule of the step.
        p: the norm, 1 < p <= infinity; a number, a traced scalar, or a schedule that maps
            the step (an int32 scalar, 0 at the first update) to one.
        momentum: decay rate of the momentum, in [0, 1); default 0.9.
        eps: smoothing of the power near zero, non-negative scalar; default 1e-8.
        weight_decay: decoupled decay rate, multiplied by the learning rate; a
            non-negative scalar or a schedule. Default None: no decay, and ``update``
            needs no params.
        weight_decay_mask: a tree of bools, a prefix of the params, or a function from
            params to one, True where to decay; default None, everywhere.
        normalization: how long the step is, before weight decay. None (default): as published.
            "rms": its root mean square is 1, so that the learning rate is that of the
            step, see :func:`lpoptax.normalize_by_update_rms`. "dual_norm": as long as
            steepest descent makes it, in proportion to the gradient, see
            :func:`lpoptax.scale_by_lp_steepest_descent`. Both are right at any scale of the
            gradient; for p < 2 they do not use ``eps``.
        per_leaf: whether each leaf is normalized by itself; default False, all as one vector.
            A leaf whose gradient has become zero goes on moving at full length while
            its momentum decays, for some hundred steps at ``momentum = 0.9``.
        accumulator_dtype: dtype of the momentum; default None, that of each parameter.

    Returns:
        A :class:`optax.GradientTransformationExtraArgs`.

    Raises:
        ValueError: if a hyperparameter is no number, ``p`` one not above 1, ``momentum`` one
            outside [0, 1), or ``eps`` or ``weight_decay`` a negative one, if there is no such
            ``normalization``, if ``per_leaf`` is set without one, or if ``update`` is called without
            params where they decay.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = lpoptax.lpsgdm(learning_rate=0.1, p=lpoptax.cosine_p_schedule(6.0, 3))
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 13.00
        Objective function: 11.94
        Objective function: 10.63

    References:
        Xu and Yang, `Beyond l2-norm and l-infinity-norm: A Curvature-Inspired lp-Norm
        Scheme for Deep Neural Networks <https://arxiv.org/abs/2606.02078>`_, 2026,
        Algorithm 2
    """
    check_learning_rate(learning_rate)
    check_decay_rate("momentum", momentum)
    return optax.chain(
        scale_by_interpolated_momentum(b1=momentum, b2=momentum, mu_dtype=accumulator_dtype),
        lp_direction(p, eps, normalization, per_leaf),
        decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )
