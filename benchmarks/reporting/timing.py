"""How fast the training loop is, and what its time goes into."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from benchmarks.config.labels import cells, label, varying
from benchmarks.config.settings import Settings
from benchmarks.data.batches import training_batches
from benchmarks.data.registry import Dataset, kind
from benchmarks.training.loop import train
from benchmarks.training.records import environment
from benchmarks.training.step import Program, TrainState, compiled_step, start

ROUNDS, WARM_UP = 30, 3


class Timing(NamedTuple):
    """The times of one run."""

    settings: Settings
    per_second: float  # images, or sequences, of the loop, over the second epoch.
    waiting: float  # share of that epoch in which the loop waited for data.
    step: float  # seconds; median.
    spread: float  # half of the interquartile range of the steps.
    optimizer: float  # seconds of the optimizer's update alone; median, in rounds with the step.


def measure(runs: Mapping[Settings, Dataset], mesh: Mesh) -> list[Timing]:
    """Trains each run for two epochs, of which the first compiles; then times its step and its last part."""
    epochs = []
    for settings, dataset in runs.items():
        _, epoch = train(dataclasses.replace(settings, epochs=2), dataset, mesh=mesh)
        examples = len(dataset.train) // settings.batch_size * settings.batch_size
        epochs.append((examples / epoch.seconds, epoch.waiting / epoch.seconds))
    steps = _interleaved([_Steps(settings, dataset, mesh) for settings, dataset in runs.items()])
    return [
        Timing(settings, *epoch, *times) for settings, epoch, times in zip(runs, epochs, steps, strict=True)
    ]


class _Steps:
    """A run's training step and its optimizer's update alone."""

    def __init__(self, settings: Settings, dataset: Dataset, mesh: Mesh) -> None:
        program, self._state = start(settings, dataset, mesh)
        batches = training_batches(dataset.train, settings.batch_size, mesh, seed=0, start=0, stop=1)
        self._batch = next(batches)
        self._step, self._update = compiled_step(program), _update(program)
        self._grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), self._state.params)

    def times(self, index: int) -> tuple[float, float]:
        """Returns the seconds of one step and of one update."""
        (self._state, _), step = _timed(self._step, self._state, self._batch, 0, index)
        self._state, update = _timed(self._update, self._state, self._grads)
        return step, update


def _interleaved(runs: Sequence[_Steps]) -> list[tuple[float, float, float]]:
    """Returns of each run's steps median and spread, and the median update.

    All take turns: the machine may be noisy.
    """
    rounds = [[run.times(index) for run in runs] for index in range(WARM_UP + ROUNDS)][WARM_UP:]
    found = []
    for times in zip(*rounds, strict=True):
        steps, updates = zip(*times, strict=True)
        low, median, high = statistics.quantiles(steps, n=4)
        found.append((median, (high - low) / 2, statistics.median(updates)))
    return found


def _update(program: Program) -> Callable[..., TrainState]:
    def update(state: TrainState, grads: Any) -> TrainState:
        updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
        return state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)

    return jax.jit(update, donate_argnums=0)


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))  # type: ignore[no-untyped-call]
    return result, time.perf_counter() - begin


def table(timings: list[Timing]) -> str:
    """Returns the times as a Markdown table."""
    first = timings[0].settings
    varies = varying([timing.settings for timing in timings])
    more = [name for name in varies if name not in ("optimizer", "p")]
    columns = ["optimizer", *(name.replace("_", " ") for name in more)]
    columns += [f"{kind(first.dataset)} / s", "waiting for data, %", "step, ms", "optimizer, % of the step"]
    rows = [columns, ["---"] * len(columns), *(_row(timing, more) for timing in timings)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    task = {"batch_size": f"batches of {first.batch_size}", "dtype": first.dtype}
    same = [f"{first.model} on {first.dataset}", *(text for name, text in task.items() if name not in more)]
    measured = ", ".join(itertools.starmap("{} {}".format, environment().items()))
    explanation = (
        f"{', '.join(same)}; step (± half of the interquartile range) and optimizer are medians of {ROUNDS} "
        "rounds in which all take turns. "
        f"Measured with {measured}."
    )
    return "\n".join([*lines, "", explanation, ""])


def _row(timing: Timing, more: list[str]) -> list[str]:
    return [
        label(timing.settings),
        *cells(timing.settings, more),
        f"{timing.per_second:.0f}",
        f"{100 * timing.waiting:.1f}",
        f"{1000 * timing.step:.1f} ± {1000 * timing.spread:.1f}",
        f"{100 * timing.optimizer / timing.step:.1f}",
    ]
