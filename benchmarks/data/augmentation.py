"""Random changes of the training images, on the device, within the compiled step."""

import jax
import jax.numpy as jnp

PADDING = 4


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Returns uint8 images, or rows of numbers, in float32, with each channel or column scaled."""
    shape = (1,) * (images.ndim - 1) + (-1,)
    mean_of_channel, std_of_channel = (jnp.array(values).reshape(shape) for values in (mean, std))
    return (images.astype(jnp.float32) - mean_of_channel) / std_of_channel


def augment(kind: str | None, key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns images [n, height, width, channels] after random crops, flips, both or neither."""
    if kind is None:
        return images
    crop_key, flip_key = jax.random.split(key)
    if kind == "crop_flip":
        images = _crop(crop_key, images)
    return _flip(flip_key, images)


def _crop(key: jax.Array, images: jax.Array) -> jax.Array:
    """Moves each image by up to four pixels each way; what comes in from outside is black."""
    n, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    corners = jax.random.randint(key, (n, 2), 0, 2 * PADDING + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def _flip(key: jax.Array, images: jax.Array) -> jax.Array:
    flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)
