"""What examples are for: what a model is given of them, and how its answer is judged.

An objective gives two figures for each example, or for each token. The first is the loss, which is a
negative logarithm of a likelihood (NLL), maybe but for a constant. The second is what its field reports.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

Scale: TypeAlias = Callable[[jax.Array], jax.Array]  # normalises inputs with the mean and std of the data.


class Task(NamedTuple):
    """What a batch asks of the model."""

    inputs: tuple[jax.Array, ...]  # the arguments of the model.
    targets: jax.Array  # what its answer is compared with.


class Objective(NamedTuple):
    """How a batch becomes a task, and what an answer is worth."""

    # From a random key, inputs, labels and the scale.
    task: Callable[[jax.Array, jax.Array, jax.Array, Scale], Task]
    # From answers and targets: the NLL, and the metric.
    figures: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    metric: Literal["top1", "mse"]  # what the second figure is, as records call it.
    judged_by: Literal["nll", "top1", "mse"]  # what is compared between runs.
    asks: str = ""  # what is to be done with the examples, if not to tell their classes.


def _labelled(key: jax.Array, inputs: jax.Array, labels: jax.Array, scale: Scale) -> Task:
    del key
    return Task((scale(inputs),), labels)


def _softmax(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = logits.astype(jnp.float32)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return nll, logits.argmax(axis=-1) == labels


def _same(key: jax.Array, images: jax.Array, labels: jax.Array, scale: Scale) -> Task:
    """Asks for the images, with pixels from 0 to 1."""
    del key, labels, scale
    pixels = images.reshape(len(images), -1).astype(jnp.float32) / 255
    return Task((pixels,), pixels)


def _bernoulli(logits: jax.Array, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns sigmoid cross-entropy and squared error, means over the pixels of each image."""
    logits = logits.astype(jnp.float32)
    nll = optax.sigmoid_binary_cross_entropy(logits, pixels)
    return nll.mean(axis=-1), jnp.square(jax.nn.sigmoid(logits) - pixels).mean(axis=-1)


def noise_share(time: jax.Array) -> jax.Array:
    """Returns the standard deviation of the noise, from 0 to 1: the cosine schedule of diffusion models."""
    return jnp.sin(time * jnp.pi / 2)


def _noised(key: jax.Array, images: jax.Array, labels: jax.Array, scale: Scale) -> Task:
    """Asks for the noise in images of which each has as much as its time says."""
    del labels
    for_noise, for_time = jax.random.split(key)
    noise = jax.random.normal(for_noise, images.shape)
    # Evenly spaced from a random start, so that each batch has early and late times.
    time = (jax.random.uniform(for_time) + jnp.arange(len(images)) / len(images)) % 1
    share = noise_share(time).reshape(-1, 1, 1, 1)
    return Task((jnp.sqrt(1 - share**2) * scale(images) + share * noise, time), noise)


def _gaussian(found: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns half of the squared error and all of it, means over the pixels of each image."""
    error = jnp.square(found.astype(jnp.float32) - noise).mean(axis=(1, 2, 3))
    return error / 2, error


CLASSES = Objective(_labelled, _softmax, "top1", "top1")
NEXT_TOKENS = Objective(_labelled, _softmax, "top1", "nll")
RECONSTRUCTION = Objective(_same, _bernoulli, "mse", "mse", "to reconstruct")
DENOISING = Objective(_noised, _gaussian, "mse", "mse", "to denoise")
