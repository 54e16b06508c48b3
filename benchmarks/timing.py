"""How fast the training loop is, and what its time goes into."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from benchmarks.batches import training_batches
from benchmarks.comparison import cells, varying
from benchmarks.datasets import Dataset, kind
from benchmarks.optimizers import label
from benchmarks.program import Program, TrainState, compiled_step, start
from benchmarks.recording import environment
from benchmarks.settings import Settings
from benchmarks.training import train

ROUNDS, WARM_UP = 30, 3


class Timing(NamedTuple):
    """The times of one run."""

    settings: Settings
    per_second: float  # images, or sequences, of the loop, over the second epoch.
    waiting: float  # share of that epoch in which the loop waited for data.
    step: float  # seconds; median.
    optimizer: float  # seconds of the optimizer's update alone; median, in rounds with the step.


def measure(settings: Settings, dataset: Dataset, mesh: Mesh) -> Timing:
    """Trains for two epochs, of which the first compiles; then times the step and its last part."""
    settings = dataclasses.replace(settings, epochs=2)
    _, epoch = train(settings, dataset, mesh=mesh)
    examples = len(dataset.train) // settings.batch_size * settings.batch_size
    step, optimizer = _interleaved(settings, dataset, mesh)
    return Timing(settings, examples / epoch.seconds, epoch.waiting / epoch.seconds, step, optimizer)


def _interleaved(settings: Settings, dataset: Dataset, mesh: Mesh) -> tuple[float, float]:
    """Returns the median times of a step and of an update, which take turns: the machine may be noisy."""
    program, state = start(settings, dataset, mesh)
    batch = next(training_batches(dataset.train, settings.batch_size, mesh, seed=0, start=0, stop=1))
    step, update = compiled_step(program), _update(program)
    other = jax.tree.map(jnp.copy, state)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), state.params)
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(WARM_UP + ROUNDS):
        (state, _), step_time = _timed(step, state, batch, 0, index)
        other, update_time = _timed(update, other, grads)
        if index >= WARM_UP:
            times[0].append(step_time)
            times[1].append(update_time)
    return statistics.median(times[0]), statistics.median(times[1])


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
        f"{', '.join(same)}; step and optimizer are medians of {ROUNDS} rounds in which they take turns. "
        f"Measured with {measured}."
    )
    return "\n".join([*lines, "", explanation, ""])


def _row(timing: Timing, more: list[str]) -> list[str]:
    return [
        label(timing.settings),
        *cells(timing.settings, more),
        f"{timing.per_second:.0f}",
        f"{100 * timing.waiting:.1f}",
        f"{1000 * timing.step:.1f}",
        f"{100 * timing.optimizer / timing.step:.1f}",
    ]
