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

from benchmarks.checkpoints import Checkpoints
from benchmarks.datasets import DATASETS
from benchmarks.models import MODELS
from benchmarks.optimizers import OPTIMIZERS, build, describe
from benchmarks.training import train

EPOCHS, STEPS_PER_EPOCH, BATCH_SIZE = 5, 3, 300
LPSGDM = OPTIMIZERS["lpsgdm"]


class Perceptron(nnx.Module):
    """A network that is small to compile, with dropout."""

    def __init__(self, channels: int, classes: int, rngs: nnx.Rngs) -> None:
        """Makes a network for the digits."""
        self.hidden = nnx.Linear(64 * channels, 32, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(32, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, 8, 8, channels] to logits."""
        return self.head(self.dropout(nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))))


MODELS["perceptron"] = Perceptron


def settings(optimizer=LPSGDM, model="perceptron"):
    """Returns what decides the run, as the jobs give it to its checkpoints."""
    return {"model": model, "seed": 0, "optimizer": describe(optimizer, EPOCHS, STEPS_PER_EPOCH)}


def start(checkpoints, epochs=EPOCHS, optimizer=LPSGDM, model="perceptron"):
    """Returns the training as `train` does."""
    dataset = DATASETS["digits"]()
    return train(
        model,
        dataset,
        dataset.validation,
        build(optimizer, EPOCHS * STEPS_PER_EPOCH),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        seed=0,
        checkpoints=checkpoints,
    )


def finish(run):
    """Returns the epochs of a training without their times, and its final state."""
    epochs = []
    while True:
        try:
            epochs.append(next(run)._replace(seconds=0))
        except StopIteration as stop:
            return epochs, stop.value


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
    epochs, state = finish(start(Checkpoints(Path(sys.argv[1]), settings(), seconds_between=0)))
    print("finished", digest(state), [epoch.train_nll for epoch in epochs])
