"""What changes in a run with the step, and the optimizer that is made of it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import lpoptax
from benchmarks.config.optimizers import OPTIMIZERS, P, own
from benchmarks.config.settings import Settings


class Swept(NamedTuple):
    """What may differ between runs that share a compiled step: numbers, or traced."""

    learning_rate: Any  # the peak.
    p: Any = None  # the first and the last, of an optimizer that anneals p between them.
    p_final: Any = None
    weight_decay: Any = None  # if there is one.


def swept(settings: Settings) -> Swept:
    """Returns these settings of a run, as numbers."""
    decay = settings.weight_decay or None
    if not _anneals_p(settings):
        return Swept(settings.learning_rate, weight_decay=decay)
    (p,) = own(settings, "p")
    return Swept(settings.learning_rate, p, final_p(settings), decay)


def without_swept(settings: Settings) -> Settings:
    """Returns what is left of the settings: it decides what is compiled."""
    # Without weight decay there is less to compute.
    decay = 1.0 if settings.weight_decay else 0.0
    same = dataclasses.replace(settings, seed=0, learning_rate=1.0, weight_decay=decay)
    return dataclasses.replace(same, p=None, p_final=None) if _anneals_p(settings) else same


def _anneals_p(settings: Settings) -> bool:
    optimizer = OPTIMIZERS[settings.optimizer]
    return optimizer.anneals and "p" in optimizer.takes


def final_p(settings: Settings) -> float:
    """Returns where an optimizer that anneals p ends."""
    return 2.0 if settings.p_final is None else settings.p_final


class Schedules(NamedTuple):
    """What changes with the step."""

    learning_rate: optax.Schedule
    p: P | None


def schedules(settings: Settings, steps_per_epoch: int, values: Swept | None = None) -> Schedules:
    """Returns the learning rate and p, from the settings or from `values` in their place."""
    total, values = settings.epochs * steps_per_epoch, values or swept(settings)
    rate = _learning_rate(settings, total, values.learning_rate)
    if values.p is not None:
        (anneal,) = own(settings, "anneal")
        shared = steps_per_epoch if anneal == "epoch" else 1
        return Schedules(rate, _annealed(values, total, shared, may_rise=settings.p_final is not None))
    if settings.optimizer == "gsgd":
        return Schedules(rate, lpoptax.gradual_p_schedule(total))
    optimizer = OPTIMIZERS[settings.optimizer]
    return Schedules(rate, own(settings, "p")[0] if "p" in optimizer.takes else optimizer.norm)


def _learning_rate(settings: Settings, total_steps: int, peak: Any) -> optax.Schedule:
    if settings.schedule == "constant":
        return optax.constant_schedule(peak)
    warmup = total_steps // 20 if settings.warmup_steps is None else settings.warmup_steps
    # As optax.warmup_cosine_decay_schedule, which compares the peak with 0 and so cannot be traced.
    rise = optax.linear_schedule(0.0, peak, warmup)
    if settings.schedule == "warmup_constant":
        return optax.join_schedules([rise, optax.constant_schedule(peak)], [warmup])
    fall = optax.cosine_decay_schedule(peak, total_steps - warmup)
    return optax.join_schedules([rise, fall], [warmup])


def _annealed(values: Swept, total_steps: int, steps_per_epoch: int, *, may_rise: bool) -> P:
    p, p_final = values.p, values.p_final
    if not isinstance(p, jax.Array):  # then the library's schedule checks it.
        if p == p_final:
            return p
        if p > p_final or not may_rise:
            return lpoptax.cosine_p_schedule(p, total_steps, p_final=p_final, steps_per_epoch=steps_per_epoch)
    falling = lpoptax.cosine_p_schedule(
        jnp.asarray(p), total_steps, p_final=jnp.asarray(p_final), steps_per_epoch=steps_per_epoch
    )
    half_cosine = lpoptax.cosine_p_schedule(3.0, total_steps, steps_per_epoch=steps_per_epoch)

    def schedule(count: jax.Array) -> jax.Array:
        # Where p rises, maybe to infinity, the exponent 1 / (p - 1) falls along the cosine.
        first, last = 1 / (jnp.asarray(p) - 1), 1 / (jnp.asarray(p_final) - 1)
        rising = 1 + 1 / (last + (first - last) * (half_cosine(count) - 2))
        # A constant p may be infinite, and of infinities there is no mean.
        return jnp.where(first > last, rising, jnp.where(jnp.isinf(p), p, falling(count)))

    return schedule


def build_optimizer(
    settings: Settings, steps_per_epoch: int, values: Swept | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer of the run, with `values` in place of the settings that they are of."""
    learning_rate, p = schedules(settings, steps_per_epoch, values)
    mask = _is_kernel if settings.decay == "kernels" else None
    if values is not None and values.weight_decay is not None:
        settings = dataclasses.replace(settings, weight_decay=values.weight_decay)
    return OPTIMIZERS[settings.optimizer].build(settings, learning_rate, p, mask)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
