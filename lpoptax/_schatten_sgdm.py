"""Gradient descent with momentum in a Schatten norm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike, DTypeLike

from lpoptax._hyperparameters import check_decay_rate, check_learning_rate, check_p
from lpoptax._matrices import axes_of_matrices
from lpoptax._momentum import scale_by_interpolated_momentum
from lpoptax._normalization import lp_direction
from lpoptax._schatten import WeightDimensionNumbers, scale_by_schatten_power
from lpoptax._weight_decay import decoupled_weight_decay


def schatten_sgdm(
    learning_rate: optax.ScalarOrSchedule,
    p: optax.ScalarOrSchedule,
    momentum: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    weight_decay: optax.ScalarOrSchedule | None = None,
    *,
    nesterov: bool = True,
    weight_decay_mask: optax.MaskOrFn = None,
    vector_p: optax.ScalarOrSchedule = jnp.inf,
    weight_dimension_numbers: WeightDimensionNumbers | None = None,
    ns_steps: int | None = None,
    precision: jax.lax.PrecisionLike = "highest",
    accumulator_dtype: DTypeLike | None = None,
    batch_sharding: NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent in the Schatten norm of matrices, with momentum and decoupled weight decay.

    .. math::

        M \leftarrow \beta M + (1 - \beta) G, \qquad
        \theta \leftarrow (1 - \eta \lambda) \theta - \eta \frac{P}{\mathrm{rms}(P)}

    where P is the power of :func:`lpoptax.scale_by_schatten_power` for a matrix, and for any
    other leaf that of :func:`lpoptax.scale_by_lp_power` for ``vector_p``; with Nesterov's momentum
    the power of :math:`\beta M + (1 - \beta) G`, else of M. Each matrix, and each other leaf, moves
    by a root mean square of ``learning_rate``, whatever p is. p = 2 is the gradient descent with
    momentum that is normalized by leaf; p = infinity is Muon, with one rule and one rate for all leaves.

    Under :func:`optax.inject_hyperparams` name in ``static_args`` whichever of ``weight_decay_mask``,
    ``weight_dimension_numbers``, ``ns_steps`` and the dtype you pass. With parameters in half precision set
    ``hyperparam_dtype=jnp.float32``.

    Args:
        learning_rate: a scalar, or a schedule of the step; the root mean square of the step.
        p: the norm of matrices, 2 <= p <= infinity; a number, a traced scalar, or a schedule that
            maps the step (an int32 scalar, 0 at the first update) to one.
        momentum: decay rate of the momentum, in [0, 1); default 0.9.
        eps: smoothing of both powers near zero, non-negative scalar; default 1e-8.
        weight_decay: decoupled decay rate, multiplied by the learning rate; a non-negative scalar
            or a schedule. Default None: no decay, and ``update`` needs no params.
        nesterov: whether the momentum is Nesterov's; default True.
        weight_decay_mask: a tree of bools, a prefix of the params, or a function from params to
            one, True where to decay; default None, everywhere.
        vector_p: the norm of the leaves that are no matrices, 1 < vector_p <= infinity; a number, a
            traced scalar, or a schedule; default infinity, the sign but for ``eps``.
        weight_dimension_numbers: which leaves are matrices, see
            :func:`lpoptax.scale_by_schatten_power`; default None, those of two dimensions.
        ns_steps: the number of iterations, from 1 to 16; default None, 8.
        precision: of the products of matrices; default "highest".
        accumulator_dtype: dtype of the momentum; default None, that of each parameter.
        batch_sharding: the sharding of a stack of matrices; default None, the compiler's choice.

    Returns:
        A :class:`optax.GradientTransformationExtraArgs`.

    Raises:
        ValueError: if a hyperparameter is no number, ``p`` one below 2, ``vector_p`` one not above
            1, ``momentum`` one outside [0, 1), or ``eps`` or ``weight_decay`` a negative one, if
            another argument is none that is allowed, or if ``update`` is called without params
            where they decay.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x["w"] ** 2) + jnp.sum(x["b"] ** 2)
        >>> solver = lpoptax.schatten_sgdm(learning_rate=0.1, p=lpoptax.cosine_p_schedule(12.0, 3))
        >>> params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "b": jnp.array([1.0, -2.0])}
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 32.65
        Objective function: 30.29
        Objective function: 27.77

    References:
        Jordan et al, `Muon: An Optimizer for Hidden Layers in Neural Networks
        <https://kellerjordan.github.io/posts/muon/>`_, 2024

        Pethick et al, `Training Deep Learning Models with Norm-Constrained LMOs
        <https://arxiv.org/abs/2502.07529>`_, 2025
    """
    check_learning_rate(learning_rate)
    check_decay_rate("momentum", momentum)
    check_p("vector_p", vector_p)
    matrices = scale_by_schatten_power(
        p,
        eps,
        weight_dimension_numbers=weight_dimension_numbers,
        ns_steps=ns_steps,
        normalization="rms",
        precision=precision,
        batch_sharding=batch_sharding,
    )
    vectors = lp_direction(vector_p, eps, normalization="rms", per_leaf=True)
    # What is emitted is momentum M + (1 - momentum) G, with the new M.
    b1 = momentum**2 if nesterov else momentum
    return optax.chain(
        scale_by_interpolated_momentum(b1=b1, b2=momentum, mu_dtype=accumulator_dtype),
        matrices,
        optax.masked(vectors, lambda updates: _are_vectors(updates, weight_dimension_numbers)),
        decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def _are_vectors(updates: optax.Updates, numbers: Any) -> Any:
    return jax.tree.map(lambda axes: axes is False, axes_of_matrices(updates, numbers))
