"""Curvature of a loss: the spectrum of its Hessian, and how evenly curvature is spread.

A diagnostic, apart from the optimizers: ``import lpoptax.curvature`` explicitly. It needs the
extra ``lpoptax[curvature]``, which is matfree.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check, check_steps
from lpoptax._matrix_free import Loss, floating, hessian_product, lanczos_quadrature, row_norms

__all__ = [
    "CurvatureSummary",
    "HessianSpectrum",
    "coordinate_curvature",
    "evenness",
    "hessian_spectrum",
    "spectral_density",
    "summary",
]


class HessianSpectrum(NamedTuple):
    """What :func:`hessian_spectrum` returns: a quadrature rule for sums over eigenvalues."""

    eigenvalues: jax.Array  #: Ritz values, rising in each row; shape=(num_samples, num_steps).
    weights: jax.Array  #: shares of all eigenvalues, in the same shape; each row sums to 1.
    num_params: jax.Array  #: d, as a float; shape=().


class CurvatureSummary(NamedTuple):
    """What :func:`summary` returns: scalars, in the dtype of the spectrum."""

    largest: jax.Array  #: shape=().
    smallest: jax.Array  #: shape=(); below zero where the loss is not convex.
    trace: jax.Array  #: shape=().
    frobenius_norm: jax.Array  #: shape=().
    evenness: jax.Array  #: shape=(), from 1/d to 1; nan if the Hessian is 0.


def hessian_spectrum(
    loss: Loss, params: Any, key: jax.Array, *, num_steps: int = 64, num_samples: int = 4
) -> HessianSpectrum:
    r"""Estimates the eigenvalues of a loss's Hessian by stochastic Lanczos quadrature.

    .. math::

        \frac1d \sum_{i=1}^{d} f(\lambda_i) \approx
        \frac1n \sum_{s=1}^{n} \sum_{k=1}^{K} w_{sk} f(\theta_{sk})

    Each of n random directions starts a Lanczos iteration of K Hessian-vector products, fully
    reorthogonalised; the Ritz values :math:`\theta` are the eigenvalues of its tridiagonal
    matrix, the weights w the squared first entries of its eigenvectors. The outermost Ritz values
    converge first, from within: the largest eigenvalue is approached from below. Where the
    Hessian has fewer than K distinct eigenvalues the surplus has weight 0. The cost is n K
    products, of two gradients or three each; the memory K times that of the params, gathered into
    one array. May be jitted.

    Args:
        loss: maps params to a real scalar, twice differentiable; for mini-batch losses close
            over fixed data.
        params: where to differentiate, a tree of real floating-point arrays; half precision is
            computed in float32.
        key: a JAX random key.
        num_steps: Lanczos steps K, at least 1, and at most d, to which more are cut; default 64.
        num_samples: random directions n, at least 1; default 4. The standard error of the
            trace is about :math:`\|H\|_F \sqrt{2/n}`.

    Returns:
        A :class:`HessianSpectrum`; not finite where the Hessian is not.

    Raises:
        ValueError: if ``num_steps`` or ``num_samples`` is not a whole number of at least 1, or
            ``params`` holds no number or others than real floating-point ones.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from lpoptax import curvature
        >>> def f(x): return jnp.sum(jnp.array([1.0, 2.0, 3.0]) * x ** 2)
        >>> params = jnp.array([1.0, 2.0, 3.0])
        >>> spectrum = curvature.hessian_spectrum(f, params, jax.random.key(0), num_samples=2)
        >>> for row in spectrum.eigenvalues:
        ...     print(" ".join(f"{value:.2f}" for value in row))
        2.00 4.00 6.00
        2.00 4.00 6.00

    References:
        Ghorbani, Krishnan and Xiao, `An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019
    """
    check_steps("num_steps", num_steps)
    check_steps("num_samples", num_samples)
    params = floating(params)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    steps = min(num_steps, size)
    eigenvalues, weights = lanczos_quadrature(hessian_product(loss, params), params, key, steps, num_samples)
    return HessianSpectrum(eigenvalues, weights, jnp.asarray(size, eigenvalues.dtype))


def spectral_density(spectrum: HessianSpectrum, grid: ArrayLike, width: ArrayLike) -> jax.Array:
    r"""Returns the density of the eigenvalues, each broadened to a Gaussian.

    .. math::

        \phi(t) = \frac1n \sum_{s,k} w_{sk} \,
        \frac{\exp(-(t - \theta_{sk})^2 / 2 \sigma^2)}{\sqrt{2 \pi} \, \sigma}

    It integrates to 1. One eigenvalue of d has the mass 1/d, so look at its logarithm.

    Args:
        spectrum: of :func:`hessian_spectrum`.
        grid: eigenvalues t at which to evaluate it, real array of any shape.
        width: standard deviation :math:`\sigma` of the Gaussians, in units of the eigenvalues,
            above 0; scalar.

    Returns:
        The density, in the shape of ``grid``.

    Raises:
        ValueError: if ``width`` is a number that is not above 0.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from lpoptax import curvature
        >>> def f(x): return 2 * jnp.sum(x ** 2)  # all eigenvalues are 4
        >>> spectrum = curvature.hessian_spectrum(f, jnp.ones(3), jax.random.key(0))
        >>> density = curvature.spectral_density(spectrum, jnp.array([3.9, 4.0]), width=0.1)
        >>> print(" ".join(f"{value:.2f}" for value in density))
        2.42 3.99

    References:
        Lin, Saad and Yang, `Approximating Spectral Densities of Large Matrices
        <https://arxiv.org/abs/1308.5467>`_, 2016
    """
    check("width", width, lambda v: v > 0, "above 0")
    grid = jnp.asarray(grid)

    def at(point: jax.Array) -> jax.Array:
        heights = jnp.exp(-(((point - spectrum.eigenvalues) / width) ** 2) / 2)
        return jnp.sum(spectrum.weights * heights) / len(spectrum.weights)

    density = jax.vmap(at)(grid.reshape(-1)) / (jnp.sqrt(2 * jnp.pi) * width)
    return density.reshape(grid.shape)


def summary(spectrum: HessianSpectrum) -> CurvatureSummary:
    r"""Returns the extreme eigenvalues, the trace, the norm and the evenness of a spectrum.

    .. math::

        \mathrm{tr}\, H = \sum_i \lambda_i, \quad
        \|H\|_F^2 = \sum_i \lambda_i^2, \quad
        \varphi(\lambda) = \frac{(\sum_i |\lambda_i|)^2}{d \sum_i \lambda_i^2}

    The evenness :math:`\varphi` measures anisotropy, whatever the scale: 1 if the loss curves by
    the same magnitude in every direction, 1/d if it curves in one only. d times it is the effective
    number of directions that curve. It says nothing of flatness, for which look at the norm.

    Args:
        spectrum: of :func:`hessian_spectrum`.

    Returns:
        A :class:`CurvatureSummary`. The true extremes may lie outside of the ones estimated. The
        evenness of a Hessian that is 0 is nan. Not finite where the Hessian is not.

    Raises:
        Nothing.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from lpoptax import curvature
        >>> def f(x): return jnp.sum(2 * x ** 2)
        >>> spectrum = curvature.hessian_spectrum(f, jnp.ones(5), jax.random.key(0))
        >>> for name, value in curvature.summary(spectrum)._asdict().items():
        ...     print(f"{name}: {value:.2f}")
        largest: 4.00
        smallest: 4.00
        trace: 20.00
        frobenius_norm: 8.94
        evenness: 1.00

    References:
        Ghorbani, Krishnan and Xiao, `An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019
    """
    size, scale = spectrum.num_params, jnp.max(jnp.abs(spectrum.eigenvalues))
    # Relative to the largest: squares leave the range of floats.
    relative = spectrum.eigenvalues / jnp.where(scale == 0, 1, scale)
    mean, magnitude, square = (
        jnp.mean(jnp.sum(spectrum.weights * moment, axis=1))
        for moment in (relative, jnp.abs(relative), relative**2)
    )
    return CurvatureSummary(
        largest=jnp.max(spectrum.eigenvalues),
        smallest=jnp.min(spectrum.eigenvalues),
        trace=size * mean * scale,
        frobenius_norm=jnp.sqrt(size * square) * scale,
        evenness=magnitude**2 / square,
    )


def coordinate_curvature(loss: Loss, params: Any, key: jax.Array, *, num_samples: int = 16) -> Any:
    r"""Estimates how fast the gradient changes along each coordinate.

    .. math::

        c_i = \|H e_i\|_2 = \Bigl(\sum_j H_{ij}^2\Bigr)^{1/2}
        \approx \Bigl(\frac1n \sum_{s=1}^{n} (H v_s)_i^2\Bigr)^{1/2}, \qquad v_s \in \{-1, 1\}^d

    The eigenvalues do not depend on the axes, descent in lp norms does: what it evens out are
    differences between coordinates, which the :func:`evenness` of this tree measures. The cost is
    n Hessian-vector products. May be jitted.

    Args:
        loss: maps params to a real scalar, twice differentiable.
        params: where to differentiate, a tree of real floating-point arrays; half precision is
            computed in float32.
        key: a JAX random key.
        num_samples: random signs n, at least 1; default 16. The relative error of each is about
            :math:`1/\sqrt{2n}` or less, and lowers their evenness by the share 1/(2n) or less.

    Returns:
        A tree like ``params``, of non-negative numbers.

    Raises:
        ValueError: if ``num_samples`` is not a whole number of at least 1, or ``params`` holds no
            number or others than real floating-point ones.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from lpoptax import curvature
        >>> def f(x): return 100 * x[0] ** 2 + 0.025 * x[1] ** 2
        >>> along = curvature.coordinate_curvature(f, jnp.ones(2), jax.random.key(0))
        >>> print(along, f"{curvature.evenness(along):.3f}")
        [2.e+02 5.e-02] 0.500

    References:
        Bernstein, Wang, Azizzadenesheli and Anandkumar, `signSGD: Compressed Optimisation for
        Non-Convex Problems <https://arxiv.org/abs/1802.04434>`_, 2018
    """
    check_steps("num_samples", num_samples)
    params = floating(params)
    return row_norms(hessian_product(loss, params), params, key, num_samples)


def evenness(tree: Any) -> jax.Array:
    r"""Measures how evenly the magnitudes in a tree are spread over its coordinates.

    .. math::

        \varphi(x) = \frac{\|x\|_1^2}{d \, \|x\|_2^2}

    It is 1 where all have the same magnitude and 1/d where one has it all, whatever the scale. As a
    rule of thumb from the bounds without noise, descent by the sign beats descent by the gradient
    where the evenness of the gradient exceeds the square root of that of the coordinates' curvature,
    for which the bounds take a diagonal above the Hessian and :func:`coordinate_curvature` may stand.

    Args:
        tree: real floating-point arrays of any shapes.

    Returns:
        A scalar from 1/d to 1; nan if all numbers are 0.

    Raises:
        ValueError: if ``tree`` holds no number or others than real floating-point ones.

    Examples:
        >>> import jax.numpy as jnp
        >>> from lpoptax import curvature
        >>> print(curvature.evenness(jnp.array([2.0, -2.0, 2.0, 2.0])))
        1.0
        >>> print(curvature.evenness({"w": jnp.array([0.0, 3.0]), "b": jnp.zeros(2)}))
        0.25

    References:
        Bernstein, Wang, Azizzadenesheli and Anandkumar, `signSGD: Compressed Optimisation for
        Non-Convex Problems <https://arxiv.org/abs/1802.04434>`_, 2018 (there the density)
    """
    leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(floating(tree)) if leaf.size]
    largest = jnp.stack([jnp.max(leaf) for leaf in leaves]).max()
    # Relative to the largest: squares leave the range of floats.
    relative = [leaf / largest for leaf in leaves]
    total = sum(jnp.sum(leaf) for leaf in relative)
    squares = sum(jnp.sum(leaf**2) for leaf in relative)
    return jnp.asarray(total**2 / (squares * sum(leaf.size for leaf in leaves)))
