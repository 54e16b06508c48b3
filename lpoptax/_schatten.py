"""The power map of the singular values of matrices: the direction of steepest descent in a Schatten norm."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check, check_non_negative, evaluate
from lpoptax._matrices import Axes, axes_of_matrices, check_batch_sharding, map_matrices
from lpoptax._newton_schulz import schatten_power
from lpoptax._power import inverse_p_minus_1
from lpoptax._precision import widen

# A tree of optax.contrib.MuonDimensionNumbers and None, or a function from params to one.
WeightDimensionNumbers: TypeAlias = optax.Params | Callable[[optax.Params], optax.Params | None]
_STEPS, _MOST_STEPS = 8, 16


class ScaleBySchattenPowerState(NamedTuple):
    """State of :func:`scale_by_schatten_power`."""

    #: shape=(), dtype=jnp.int32.
    count: jax.Array  # type: ignore[assignment]


def scale_by_schatten_power(
    p: optax.ScalarOrSchedule,
    eps: ArrayLike = 1e-8,
    *,
    weight_dimension_numbers: WeightDimensionNumbers | None = None,
    ns_steps: int | None = None,
    normalization: Literal["rms"] | None = None,
    precision: jax.lax.PrecisionLike = "highest",
    batch_sharding: NamedSharding | None = None,
) -> optax.GradientTransformation:
    r"""Applies the power map to the singular values of every matrix of the updates.

    .. math::

        G = U \,\mathrm{diag}(\sigma)\, V^T \quad\mapsto\quad
        U \,\mathrm{diag}\Bigl(\frac{\sigma}{(\sigma + \epsilon)^\rho}\Bigr)\, V^T, \qquad
        \rho = 1 - \frac{1}{p - 1}

    It is what :func:`lpoptax.scale_by_lp_power` is for vectors: the direction of steepest descent, in the
    Schatten norm, which is the p-norm of the singular values. p = 2 gives G itself, p = infinity the
    polar factor :math:`U V^T`, which is the step of Muon. Leaves that are no matrices pass through.

    No singular value is computed. The iterates of

    .. math::

        X_{k+1} = 2.5 X_k - 2.5 A X_k + A^2 X_k, \qquad A = X_k X_k^T, \qquad
        X_0 = G \,/\, \|G G^T G G^T\|_F^{1/4}

    go from G to its polar factor, and a sum of them with weights that depend on p and eps is the
    power, whether p is a number, traced or scheduled. Where the singular values of :math:`X_0` are
    at least :math:`1.5 \cdot 2.5^{-K}` (1e-3 for the default of K = 8 steps, 1.6e-4 for 10), they
    are within 4 % of the exact ones; where they are at least 1e-3, ten steps are within 0.3 %.
    Smaller ones become smaller than they should.

    Matrices are computed in at least float32 and returned in the dtype that they have, so that in
    half precision the rounding of G and of the result is added. Matrices of one shape are computed
    together: a program grows with the number of shapes, not with that of leaves. A matrix of any
    scale is right whose entries are normal numbers, and no finite one gives nan.

    On many devices the result is right however leaves are sharded, and the compiler chooses how the
    products are. With ``batch_sharding`` each device has some matrices whole: shards are exchanged
    once before the products and once after, and nothing between. Matrices that are sharded along both of
    their axes the compiler may gather first. The updates are sharded like the leaves, but where leaves
    of one shape differ in that, on a mesh with automatic axes, as the compiler chooses.

    Args:
        p: the norm, 2 <= p <= infinity; a number, a traced scalar, or a schedule that maps the step
            (an int32 scalar, 0 at the first update) to one. Below 2, where a power is no sum of
            these iterates, a number is refused, and a traced scalar taken for 2.
        eps: smoothing of the power near zero, in the units of the singular values, non-negative
            scalar; default 1e-8.
        weight_dimension_numbers: which leaves are matrices; a tree, or a prefix of one, of
            :class:`optax.contrib.MuonDimensionNumbers`, or None for a leaf that is none, or a
            function from the updates to such a tree. Axes that a leaf's numbers do not name are a
            batch of matrices; several axes that are a reduction (or an output) together are one
            side of the matrix, so that a convolution kernel (height, width, in, out) has
            ``MuonDimensionNumbers((0, 1, 2), 3)``. Default None: leaves of two dimensions.
        ns_steps: the number K of iterations, from 1 to 16; default None, 8.
        normalization: "rms" for matrices with a root mean square of 1, each by itself, so that a
            step's length does not depend on p; default None.
        precision: of the products of matrices, as :func:`jax.numpy.matmul` takes it; default
            "highest". On accelerators "default" is faster: where the singular values of
            :math:`X_0` are at least 0.03, results are within 3 % with products in bfloat16, and
            within 0.3 % in TF32; smaller ones drown in rounding errors.
        batch_sharding: the sharding of a stack of matrices [batch, rows, columns], of its first axis;
            default None, the compiler's choice.

    Returns:
        A :class:`optax.GradientTransformation`. Updates keep their shapes and dtypes.

    Raises:
        ValueError: if ``p`` is a number below 2, ``eps`` a negative one, if ``ns_steps``,
            ``normalization`` or ``batch_sharding`` is none that is allowed, and in ``update`` if
            ``weight_dimension_numbers`` name an axis that a leaf lacks, or twice, or a leaf of
            integers.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import lpoptax
        >>> import optax
        >>> def f(x): return jnp.sum(x ** 2)
        >>> solver = optax.chain(lpoptax.scale_by_schatten_power(p=3.0), optax.scale(-0.1))
        >>> params = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> state = solver.init(params)
        >>> for _ in range(3):
        ...     updates, state = solver.update(jax.grad(f)(params), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(f"Objective function: {f(params):.2f}")
        Objective function: 26.43
        Objective function: 23.20
        Objective function: 20.29

    References:
        Jordan et al, `Muon: An Optimizer for Hidden Layers in Neural Networks
        <https://kellerjordan.github.io/posts/muon/>`_, 2024

        Pethick et al, `Training Deep Learning Models with Norm-Constrained LMOs
        <https://arxiv.org/abs/2502.07529>`_, 2025
    """
    check("p", p, lambda v: v >= 2, "at least 2 (infinity included)", may_be_schedule=True)
    check_non_negative("eps", eps)
    steps = _STEPS if ns_steps is None else ns_steps
    if type(steps) is not int or not 1 <= steps <= _MOST_STEPS:
        raise ValueError(
            f"ns_steps must be a whole number from 1 to {_MOST_STEPS}, got ns_steps={ns_steps!r} "
            "(under inject_hyperparams, name it in static_args)."
        )
    if normalization not in (None, "rms"):
        raise ValueError(f"normalization must be None or 'rms', got normalization={normalization!r}.")
    check_batch_sharding(batch_sharding)
    settings = _Settings(steps, precision, normalization == "rms", batch_sharding)

    def init_fn(params: optax.Params) -> ScaleBySchattenPowerState:
        del params
        return ScaleBySchattenPowerState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates, state: ScaleBySchattenPowerState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaleBySchattenPowerState]:
        del params
        axes = axes_of_matrices(updates, weight_dimension_numbers)
        leaves, structure = jax.tree.flatten(updates)
        powers = _powers(leaves, evaluate(p, state.count), eps, tuple(jax.tree.leaves(axes)), settings)
        count = optax.safe_increment(state.count)
        return jax.tree.unflatten(structure, powers), ScaleBySchattenPowerState(count=count)

    return optax.GradientTransformation(init_fn, update_fn)


class _Settings(NamedTuple):
    steps: int
    precision: jax.lax.PrecisionLike
    unit_rms: bool
    batch_sharding: NamedSharding | None


def _powers(
    leaves: list[Any], p: ArrayLike, eps: ArrayLike, axes: tuple[Axes | bool, ...], settings: _Settings
) -> list[Any]:
    """Returns the leaves, those with axes as powers of what they are."""
    are_matrices = [one is not False for one in axes]
    matrices = [leaf for leaf, is_matrix in zip(leaves, are_matrices, strict=True) if is_matrix]
    if not matrices:
        return leaves
    (common,) = widen(*(jnp.zeros((), jnp.asarray(leaf).dtype) for leaf in matrices))[:1]
    exponent = jnp.minimum(inverse_p_minus_1(p, common), 1)
    powers = iter(
        _powers_of_matrices(matrices, exponent, eps, tuple(one for one in axes if one is not False), settings)
    )
    return [next(powers) if is_matrix else leaf for leaf, is_matrix in zip(leaves, are_matrices, strict=True)]


@functools.partial(jax.jit, static_argnames=("axes", "settings"))
def _powers_of_matrices(
    leaves: list[ArrayLike],
    exponent: jax.Array,
    eps: ArrayLike,
    axes: tuple[Axes, ...],
    settings: _Settings,
) -> list[jax.Array]:
    steps, precision, unit_rms, batch_sharding = settings

    def power(stack: jax.Array) -> jax.Array:
        return schatten_power(stack, exponent, eps, steps=steps, precision=precision, unit_rms=unit_rms)

    is_identity = (exponent == 1) & (not unit_rms)  # At p = 2 not even a rounding is left.
    return map_matrices(power, leaves, axes, batch_sharding, unless=is_identity)
