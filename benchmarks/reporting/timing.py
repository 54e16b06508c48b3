"""How fast the training loop is, and what its time goes into."""

import dataclasses
import random
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from benchmarks.config.labels import columns, label, varying
from benchmarks.config.schedules import build_optimizer
from benchmarks.config.settings import Settings
from benchmarks.data.batches import training_batches
from benchmarks.data.registry import Dataset, kind
from benchmarks.reporting.tables import markdown_table
from benchmarks.training.loop import train
from benchmarks.training.records import PACKAGES, environment, measured_with
from benchmarks.training.step import TrainState, arguments, compiled_step, start, steps_per_epoch

Name = TypeVar("Name", bound=Hashable)
ROUNDS, WARM_UP = 30, 3
SLOW, RARELY = 1.0, 10  # what takes more than a second takes part in every tenth round.
PAUSE = 0.02  # seconds before each, for the threads of another library to fall asleep.


def interleaved(
    functions: Mapping[Name, Callable[[], None]], rounds: int, warm_up: int
) -> dict[Name, list[float]]:
    """Returns the seconds that each takes, in rounds in which all take turns in a new order.

    The machine may be noisy: then it is so for all.
    """
    times: dict[Name, list[float]] = {name: [] for name in functions}
    order = list(functions)
    for index in range(warm_up + rounds):
        random.Random(index).shuffle(order)
        for name in order:
            if index % RARELY and len(times[name]) > 2 and times[name][-1] > SLOW:
                continue
            time.sleep(PAUSE)
            begin = time.perf_counter()
            functions[name]()
            times[name].append(time.perf_counter() - begin)
    return {name: taken[min(warm_up, len(taken) - 2) :] for name, taken in times.items()}


def table(runs: Mapping[Settings, Dataset], mesh: Mesh) -> str:
    """Trains two epochs of each run, the first to compile, and times steps; returns a Markdown table."""
    epochs: list[list[str]] = []
    functions: dict[tuple[Settings, str], Callable[[], None]] = {}
    for settings, dataset in runs.items():
        _, epoch = train(dataclasses.replace(settings, epochs=2), dataset, mesh=mesh)
        examples = steps_per_epoch(settings, dataset) * settings.batch_size
        epochs.append([f"{examples / epoch.seconds:.0f}", f"{100 * epoch.waiting / epoch.seconds:.1f}"])
        step, update = _step_and_update(settings, dataset, mesh)
        functions |= {(settings, "step"): step, (settings, "update"): update}
    times = interleaved(functions, ROUNDS, WARM_UP)
    more = varying(runs, but=("optimizer", "p"))
    told = columns(list(runs), more)
    rows = [
        [label(settings), *cells, *epoch, *_shares(times, settings)]
        for settings, cells, epoch in zip(runs, told.to_numpy(), epochs, strict=True)
    ]
    first = next(iter(runs))
    headings = ["optimizer", *told, f"{kind(first.dataset)} / s"]
    headings += ["waiting for data, %", "step, ms", "optimizer, % of the step"]
    task = {"batch_size": f"batches of {first.batch_size}", "dtype": first.dtype}
    same = [f"{first.model} on {first.dataset}", *(text for name, text in task.items() if name not in more)]
    return (
        f"{markdown_table(headings, rows)}\n\n{', '.join(same)}; "
        f"step (± half of the interquartile range) and optimizer are medians of {ROUNDS} rounds in which all "
        f"take turns. {measured_with([environment()], PACKAGES)}\n"
    )


def _step_and_update(
    settings: Settings, dataset: Dataset, mesh: Mesh
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Returns a run's training step, and its optimizer's update alone."""
    program, state = start(settings, dataset, mesh)
    step, values = compiled_step(program), arguments(settings)
    batch = next(training_batches(dataset.train, settings.batch_size, mesh, seed=0, start=0, stop=1))
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), state.params)
    kept = [state]

    @partial(jax.jit, donate_argnums=0)
    def update(state: TrainState, grads: Any) -> TrainState:
        optimizer = build_optimizer(program.settings, program.steps_per_epoch, values)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return state._replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state)

    def run_step() -> None:
        kept[0], _ = jax.block_until_ready(step(kept[0], batch, values, 0, 0))  # type: ignore[no-untyped-call]

    def run_update() -> None:
        kept[0] = jax.block_until_ready(update(kept[0], grads))  # type: ignore[no-untyped-call]

    return run_step, run_update


def _shares(times: Mapping[Any, list[float]], settings: Settings) -> list[str]:
    low, step, high = 1000 * np.quantile(times[settings, "step"], (0.25, 0.5, 0.75))
    update = 1000 * np.median(times[settings, "update"])
    return [f"{step:.1f} ± {(high - low) / 2:.1f}", f"{100 * update / step:.1f}"]
