"""How fast a grid of learning rates and p is trained: in separate programs, in one, and with `jax.vmap`."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.studies.grid_training import (
    Task,
    all_batches,
    begin,
    data,
    one_device,
    optimizer,
    step,
    with_optimizer,
)
from benchmarks.training.step import Program, start, train_step

TOGETHER, ROUNDS = 8, 5
Advance = Callable[[Any, int], Any]


def speeds(task: Task, method: str = "rms") -> dict[str, tuple[float, float]]:
    """Returns the seconds of the first step, which compiles, and of a later one of one network, by way.

    The ways take turns; of the later steps it is the median.
    """
    dataset = data(task, "validation")
    plain, initial = start(task.settings(0), dataset, one_device())
    program, _ = begin(task, dataset, 0)
    batches = all_batches(task, dataset, 0)
    initial = with_optimizer(task, initial, method, len(batches))
    rates, norms = np.geomspace(1e-4, 1e-2, TOGETHER), np.linspace(2, 8, TOGETHER)
    same = optimizer(task, method, len(batches), 1e-3, 6.0, 2.0)

    def alone(program: Program) -> Advance:
        advance = jax.jit(partial(train_step, program._replace(optimizer=same)), donate_argnums=0)
        return lambda state, count: advance(state, batches[0], 0, count)[0]

    traced = partial(step, task, program, method, len(batches))
    one = jax.jit(traced, donate_argnums=0)
    all_ = jax.jit(jax.vmap(traced, (0, None, None, None, 0, 0, None)), donate_argnums=0)
    ways: dict[str, Advance] = {
        "a program for each run, with XLA's convolutions": alone(plain),
        "a program for each run": alone(program),
        "one program, run after run": lambda state, count: one(
            state, batches[0], 0, count, rates[count], norms[count], 2.0
        ),
        f"one program, {TOGETHER} runs at once": lambda state, count: all_(
            state, batches[0], 0, count, rates, norms, 2.0
        ),
    }
    *others, last = ways
    states = {way: jax.tree.map(jnp.copy, initial) for way in others}
    states[last] = jax.tree.map(lambda leaf: jnp.stack([leaf] * TOGETHER), initial)
    calls = {way: 1 if way == last else TOGETHER for way in ways}
    times: dict[str, list[float]] = {}
    for way, advance in ways.items():
        states[way], seconds = _timed(advance, states[way], 1)
        times[way] = [seconds]
    for _ in range(ROUNDS):
        for way, advance in ways.items():
            states[way], seconds = _timed(advance, states[way], calls[way])
            times[way].append(seconds / TOGETHER)
    return {way: (first, statistics.median(later)) for way, (first, *later) in times.items()}


def _timed(advance: Advance, state: Any, calls: int) -> tuple[Any, float]:
    started = time.perf_counter()
    for count in range(calls):
        state = advance(state, count)
    jax.block_until_ready(state)  # type: ignore[no-untyped-call]
    return state, time.perf_counter() - started
