"""The models, by name: each is an entry here."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from benchmarks.models.convolutions import of_matrix_products
from benchmarks.models.dense import Autoencoder, Perceptron
from benchmarks.models.llama import Llama, Size
from benchmarks.models.recurrent import LSTM
from benchmarks.models.signals import SignalNetwork
from benchmarks.models.transformer import VisionTransformer
from benchmarks.models.unet import UNet
from benchmarks.models.vision import VGG, basic, bottleneck, resnet, small_resnet

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Model(NamedTuple):
    """How a model is made, and what it takes."""

    build: Callable[..., nnx.Module]  # from keywords: shape, classes, dtype, rngs.
    takes: str = "images"  # the kind of the examples.
    smallest: int = 1  # pixels, of an image's sides.


MODELS = {
    "resnet4": Model(partial(small_resnet, 1, stages=1)),  # the smallest: for checks that must be quick.
    "resnet8": Model(partial(small_resnet, 1)),
    # A quarter of the work: for full-size studies on a CPU.
    "resnet8_stride2": Model(partial(small_resnet, 1, stride=2)),
    # Faster on a CPU.
    "resnet8_products": Model(partial(of_matrix_products, small_resnet, 1)),
    "resnet8_stride2_products": Model(partial(of_matrix_products, small_resnet, 1, stride=2)),
    "resnet20": Model(partial(small_resnet, 3)),
    "resnet18": Model(partial(resnet, basic, (2, 2, 2, 2))),
    "resnet50": Model(partial(resnet, bottleneck, (3, 4, 6, 3))),
    "vgg11": Model(VGG, smallest=32),  # its five poolings leave one pixel.
    # Minutes of training on a CPU.
    "llama_small": Model(partial(Llama, Size(layers=2, width=128, heads=4, hidden=344)), "sequences"),
    # Seconds to a minute: those of the suite.
    "llama_tiny": Model(partial(Llama, Size(layers=2, width=64, heads=4, hidden=172)), "sequences"),
    "lstm_small": Model(partial(LSTM, 64, 128), "sequences"),
    "vit_small": Model(partial(VisionTransformer, 2, 32, 2)),
    "autoencoder": Model(partial(Autoencoder, (256, 128, 64, 30)), "images to reconstruct"),
    "unet_small": Model(partial(UNet, 12), "images to denoise"),
    "mlp256": Model(partial(Perceptron, (256, 256)), "rows"),
    "signal_network": Model(partial(of_matrix_products, SignalNetwork, 25), "signals"),
    "llama100m": Model(partial(Llama, Size(layers=12, width=640, heads=10, hidden=1708)), "sequences"),
}


def build_model(
    name: str, shape: Sequence[int], classes: int, *, dtype: str = "float32", seed: int = 0
) -> nnx.Module:
    """Returns the model for images of shape (height, width, channels), or text of shape (length,)."""
    return MODELS[name].build(shape=shape, classes=classes, dtype=DTYPES[dtype], rngs=nnx.Rngs(seed))
