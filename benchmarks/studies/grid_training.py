"""Trains small networks with many learning rates and p, all by one compiled program."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh
from jax.typing import ArrayLike

import lpoptax
from benchmarks.config.annealing import annealed_p, label
from benchmarks.config.optimizers import schedules
from benchmarks.config.settings import Settings
from benchmarks.data.batches import Batch, evaluation_batches, training_batches
from benchmarks.data.registry import Dataset, HeldOut, Split, load
from benchmarks.models.convolutions import with_matrix_products
from benchmarks.training.step import (
    Program,
    TrainState,
    compiled_evaluation,
    means,
    start,
    steps_per_epoch,
    train_step,
    zeros,
)

Record = dict[str, float]  # of a run: NLL and share of right answers, over what is held out.

# Each from the schedules of the learning rate and of p. The weight decay is 0, all else at its default.
METHODS: dict[str, Callable[[optax.Schedule, optax.Schedule], optax.GradientTransformation]] = {
    "none": lambda rate, p: lpoptax.lpsgdm(rate, p),
    "dual_norm": lambda rate, p: lpoptax.lpsgdm(rate, p, normalization="dual_norm"),
    "rms": lambda rate, p: lpoptax.lpsgdm(rate, p, normalization="rms"),
    "sgdm": lambda rate, p: optax.sgd(rate, momentum=0.9),
    "adamw": lambda rate, p: optax.adamw(rate, weight_decay=0.0),
}


class Task(NamedTuple):
    """A network, and how much of a dataset it is trained and judged on."""

    dataset: str
    model: str
    batch_size: int
    epochs: int
    train: int  # examples, the first of the split.
    validation: int  # examples alike; of a test split all are taken.
    halved: bool = False  # whether images are reduced to half their height and width.

    def settings(self, seed: int) -> Settings:
        """Returns what decides all but the optimizer, with a learning rate that peaks at 1."""
        return Settings(self.dataset, self.model, "lpsgdm", self.batch_size, self.epochs, 1.0, seed=seed)


class Norm(NamedTuple):
    """The p of the first and of the last step; between them is half a cosine."""

    first: float
    last: float

    @property
    def label(self) -> str:
        """Returns what to call it."""
        return label(self.first, self.last)


class Cell(NamedTuple):
    """What tells a run from the others of its task."""

    method: str
    norm: Norm
    learning_rate: float  # the peak.
    seed: int


class Excerpt:
    """The first examples of a split, in memory."""

    def __init__(self, split: Split, size: int, *, halved: bool) -> None:
        """Loads them."""
        inputs, self.labels = split.load(np.arange(min(size, len(split))), None)
        self.inputs = halve(inputs) if halved else inputs

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.labels)

    def load(self, indices: np.ndarray, seed: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and labels; nothing is random."""
        return self.inputs[indices], self.labels[indices]


def halve(images: np.ndarray) -> np.ndarray:
    """Returns the means over squares of four pixels."""
    n, height, width, channels = images.shape
    squares = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    return squares.mean(axis=(2, 4)).round().astype(images.dtype)


@functools.cache
def data(task: Task, held_out: HeldOut) -> Dataset:
    """Returns the task's part of its dataset. What is trained on is the same whatever is held out."""
    full = load(task.dataset, held_out=held_out)
    size = task.validation if held_out == "validation" else len(full.held_out)
    train, held = (
        Excerpt(split, examples, halved=task.halved)
        for split, examples in ((full.train, task.train), (full.held_out, size))
    )
    shape = train.inputs.shape[1:] if full.mean else full.shape
    return full._replace(train=train, held_out=held, shape=shape)


@functools.cache
def one_device() -> Mesh:
    """Returns a mesh of one device, which small networks are trained on."""
    return jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])


def train(task: Task, cells: Sequence[Cell], held_out: HeldOut) -> Iterator[Record]:
    """Trains a network for each cell, one after the other, and yields how it ends.

    The steps of all that share a method are one compiled program, to which learning rate and p are
    arguments. Cells of one seed should follow each other: they share batches and initial values.
    """
    dataset = data(task, held_out)
    held = list(evaluation_batches(dataset.held_out, task.batch_size, one_device()))
    for seed, same in itertools.groupby(cells, key=lambda cell: cell.seed):
        program, initial = begin(task, dataset, seed)
        batches = all_batches(task, dataset, seed)
        for cell in same:
            state = _train(task, program, initial, batches, cell)
            nll, top1 = _evaluate(program, state, held)
            yield {"held_out_nll": nll, "held_out_top1": top1}


def begin(task: Task, dataset: Dataset, seed: int) -> tuple[Program, TrainState]:
    """Returns the program and the initial state, with matrix products for convolutions: they are faster."""
    program, state = start(task.settings(seed), dataset, one_device())
    network = with_matrix_products(program.evaluated, state.params, state.model_state)
    return program._replace(graphdef=network, evaluated=network), state


def all_batches(task: Task, dataset: Dataset, seed: int) -> list[Batch]:
    """Returns the batches of a run."""
    steps = task.epochs * steps_per_epoch(task.settings(seed), dataset)
    return list(
        training_batches(dataset.train, task.batch_size, one_device(), seed=seed, start=0, stop=steps)
    )


def _train(task: Task, program: Program, initial: TrainState, batches: list[Batch], cell: Cell) -> TrainState:
    advance = compiled(task, program, cell.method, len(batches))
    # A copy: the step updates its state in place.
    state = jax.tree.map(jnp.copy, with_optimizer(task, initial, cell.method, len(batches)))
    for count, batch in enumerate(batches):
        state = advance(state, batch, cell.seed, count, cell.learning_rate, *cell.norm)
    return state


def _evaluate(program: Program, state: TrainState, held: list[Batch]) -> tuple[float, float]:
    evaluate, totals = compiled_evaluation(program), zeros(one_device())
    for batch in held:
        totals = evaluate(state.params, state.model_state, totals, batch)
    return means(totals)


def optimizer(
    task: Task, method: str, steps: int, learning_rate: ArrayLike, first_p: ArrayLike, last_p: ArrayLike
) -> optax.GradientTransformation:
    """Returns the optimizer with the benchmarks' schedule of the learning rate, and p annealed every step."""
    shape, _ = schedules(task.settings(0), steps // task.epochs)
    return METHODS[method](lambda count: learning_rate * shape(count), annealed_p(first_p, last_p, steps))


def with_optimizer(task: Task, state: TrainState, method: str, steps: int) -> TrainState:
    """Returns the state with that of the method's optimizer before the first step."""
    return state._replace(opt_state=optimizer(task, method, steps, 0.0, 2.0, 2.0).init(state.params))


@functools.lru_cache(maxsize=2 * len(METHODS))
def compiled(task: Task, program: Program, method: str, steps: int) -> Callable[..., TrainState]:
    """Returns the training step, which updates `state` in place."""
    return jax.jit(partial(step, task, program, method, steps), donate_argnames="state")


def step(
    task: Task,
    program: Program,
    method: str,
    steps: int,
    state: TrainState,
    batch: Batch,
    seed: ArrayLike,
    count: ArrayLike,
    learning_rate: ArrayLike,
    first_p: ArrayLike,
    last_p: ArrayLike,
) -> TrainState:
    """Returns the state after a step at a learning rate, which peaks at `learning_rate`, and a p."""
    chosen = optimizer(task, method, steps, learning_rate, first_p, last_p)
    return train_step(program._replace(optimizer=chosen), state, batch, seed, count)[0]
