"""Convolutions as matrix products, for CPUs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def of_matrix_products(build: Callable[..., nnx.Module], *args: Any, **options: Any) -> nnx.Module:
    """Builds a model whose convolutions are matrix products."""
    model = build(*args, **options)
    for _, module in nnx.iter_graph(model):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = convolve
    return model


def with_matrix_products(graphdef: nnx.GraphDef[Any], *states: Any) -> nnx.GraphDef[Any]:
    """Returns the same of a model that is given with its states."""
    return nnx.graphdef(of_matrix_products(lambda: nnx.merge(graphdef, *states, copy=True)))


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = (1, 1),
    rhs_dilation: Any = (1, 1),
    feature_group_count: int = 1,
    **others: Any,
) -> jax.Array:
    """Convolves as a product of patches and kernel.

    On CPUs XLA takes about twice as long for the derivative of its own convolution, and six to nine
    times as long for the second derivative.
    """
    del others  # of layout and precision, which Flax names as they are here.
    more = {*lhs_dilation, *rhs_dilation, feature_group_count} - {1}
    if more or isinstance(padding, str):
        raise ValueError(
            "as matrix products convolutions must have explicit padding, no dilation and one group, got "
            f"{padding=}, {lhs_dilation=}, {rhs_dilation=}, {feature_group_count=}."
        )
    height, width, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    # Where the patches may begin.
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i in range(height)
        for j in range(width)
    ]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(height * width * channels, features)
