"""A short training with a checkpoint after every step, to be killed: FOLDER is its argument.

The model has what a checkpoint must hold: parameters, batch statistics, a random stream.
Prints a digest of the final state.
"""

import hashlib
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType

from benchmarks.config.settings import Settings
from benchmarks.data.registry import load
from benchmarks.models.registry import MODELS, Model
from benchmarks.training.checkpoints import Checkpoints
from benchmarks.training.loop import train

EPOCHS, STEPS_PER_EPOCH = 5, 3
LPSGDM = Settings(
    "digits",
    "perceptron",
    "lpsgdm",
    batch_size=300,
    epochs=EPOCHS,
    learning_rate=0.01,
    p=6.0,
    held_out="validation",
)


class Perceptron(nnx.Module):
    """A network that is small to compile, with dropout."""

    def __init__(self, *, shape, classes, dtype, rngs) -> None:
        """Makes a network for the digits."""
        self.hidden = nnx.Linear(64 * shape[-1], 32, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(32, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, 8, 8, channels] to logits."""
        return self.head(self.dropout(nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))))


MODELS["perceptron"] = Model(Perceptron)


def start(checkpoints, settings=LPSGDM, mesh=None):
    """Returns the training as `train` does, on one device unless there is a mesh."""
    mesh = mesh or jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    dataset = load("digits", held_out=settings.held_out)
    return train(settings, dataset, mesh=mesh, checkpoints=checkpoints)


def finish(run):
    """Returns the epochs of a training without their times, and its final state."""
    measured = []
    while True:
        try:
            measured.append(next(run)._replace(seconds=0, waiting=0))
        except StopIteration as stop:
            return measured, stop.value


def digest(state):
    """Returns a checksum of every bit."""
    data = jax.tree.map(
        lambda leaf: (
            jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        ),
        state,
    )
    return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(data))).hexdigest()


if __name__ == "__main__":
    epochs, state = finish(start(Checkpoints(Path(sys.argv[1]), LPSGDM.plain(), seconds_between=0)))
    print("finished", digest(state), [epoch.train_nll for epoch in epochs])
