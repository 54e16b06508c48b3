"""The optimizers, by name, built from the settings of a run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

import lpoptax
from benchmarks.config.settings import Settings

P: TypeAlias = optax.ScalarOrSchedule
Transformation: TypeAlias = optax.GradientTransformation
Build = Callable[[Settings, optax.Schedule, P, optax.MaskOrFn], Transformation]
DEFAULTS = {"p": 6.0, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "alpha": 0.01, "tau": 0.001, "anneal": "epoch"}


class Optimizer(NamedTuple):
    """How to build an optimizer from settings, learning rate, p and the mask of the weight decay."""

    label: str
    build: Build
    takes: dict[str, Any]  # the hyperparameters of its own, and their defaults.
    norm: float | None = None  # where the optimizer takes no p: that of its steps, if it has one.
    anneals: bool = False  # lowers p, to 2 unless told otherwise.


def _coupled(inner: Callable[[Settings, optax.Schedule], Transformation]) -> Build:
    """Adds the decay to the gradient, as PyTorch does for these."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        del p
        decay = optax.add_decayed_weights(settings.weight_decay, mask)
        return optax.chain(decay, inner(settings, rate))

    return build


def _adamw(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps = _own(settings, "b1", "b2", "eps")
    return optax.adamw(rate, b1, b2, eps, weight_decay=settings.weight_decay, mask=mask)


def _lion(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2 = _own(settings, "b1", "b2")
    return optax.lion(rate, b1, b2, weight_decay=settings.weight_decay, mask=mask)


def _lpsgd(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    (eps,) = _own(settings, "eps")
    return lpoptax.lpsgd(
        rate,
        p,
        eps,
        settings.weight_decay,
        weight_decay_mask=mask,
        normalization=settings.normalization,
        per_leaf=bool(settings.per_leaf),
    )


def _lpsgdm(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    b1, eps = _own(settings, "b1", "eps")
    return lpoptax.lpsgdm(
        rate,
        p,
        b1,
        eps,
        settings.weight_decay,
        weight_decay_mask=mask,
        normalization=settings.normalization,
        per_leaf=bool(settings.per_leaf),
    )


def _schatten_sgdm(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    b1, eps, matrices = _own(settings, "b1", "eps", "matrices")
    return lpoptax.schatten_sgdm(
        rate,
        p,
        b1,
        eps,
        settings.weight_decay,
        weight_decay_mask=mask,
        weight_dimension_numbers=MATRICES[matrices],
    )


def _muon(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
    del p
    b1, b2, eps, matrices = _own(settings, "b1", "b2", "eps", "matrices")
    return optax.contrib.muon(
        rate,
        beta=b1,
        eps=eps,
        weight_decay=settings.weight_decay,
        weight_decay_mask=mask,
        adam_b2=b2,
        adam_weight_decay=settings.weight_decay,
        muon_weight_dimension_numbers=MATRICES[matrices],
        consistent_rms=0.2,  # of a matrix's step, which is about that of AdamW's.
    )


def _all_matrices(params: Any) -> Any:
    """Returns how kernels and embeddings are matrices; that of a convolution has (height x width x in) rows."""

    def numbers(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(numbers, params)


def _hidden_matrices(params: Any) -> Any:
    """Returns the same but for the first and the last layer."""

    def hidden(path: Any, leaf: jax.Array) -> jax.Array:
        ends = any(getattr(key, "key", None) in ("embedding", "stem", "head") for key in path)
        return jnp.zeros(()) if ends else leaf

    return _all_matrices(jax.tree_util.tree_map_with_path(hidden, params))


MATRICES = {"hidden": _hidden_matrices, "all": _all_matrices}


def _stacey(primal: float | None, mirror: float | None) -> Build:
    """Returns STACEY with the given norms, None standing for p."""

    def build(settings: Settings, rate: optax.Schedule, p: P, mask: optax.MaskOrFn) -> Transformation:
        b1, b2, eps, alpha, tau = _own(settings, "b1", "b2", "eps", "alpha", "tau")
        return lpoptax.stacey(
            rate,
            p if primal is None else primal,
            mirror_p=p if mirror is None else mirror,
            alpha=alpha,
            tau=tau,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=settings.weight_decay,
            weight_decay_mask=mask,
        )

    return build


def _own(settings: Settings, *names: str) -> tuple[Any, ...]:
    """Returns hyperparameters of the optimizer, or their defaults."""
    takes = OPTIMIZERS[settings.optimizer].takes
    named = {name: getattr(settings, name) for name in names}
    return tuple(takes[name] if value is None else value for name, value in named.items())


def _defaults(*names: str, **others: float) -> dict[str, Any]:
    return {**{name: DEFAULTS[name] for name in names}, **others}


_ADAM = _defaults("b1", "eps", b2=0.999)
# None: p falls to 2, and steps are as long as published.
_LENGTH: dict[str, Any] = {"normalization": None, "per_leaf": None}
_ANNEALED = {**_defaults("p", "eps", "anneal"), "p_final": None, **_LENGTH}
_STACEY = _defaults("b1", "b2", "eps", "alpha", "tau", p=3.0)

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer("SGD", _coupled(lambda s, rate: optax.sgd(rate)), {}, norm=2.0),
    "sgdm": Optimizer(
        "SGD with momentum",
        _coupled(lambda s, rate: optax.sgd(rate, *_own(s, "b1"))),
        _defaults("b1"),
        norm=2.0,
    ),
    "sgd_nesterov": Optimizer(
        "SGD with Nesterov momentum",
        _coupled(lambda s, rate: optax.sgd(rate, *_own(s, "b1"), nesterov=True)),
        _defaults("b1"),
        norm=2.0,
    ),
    "adam": Optimizer("Adam", _coupled(lambda s, rate: optax.adam(rate, *_own(s, "b1", "b2", "eps"))), _ADAM),
    "adamw": Optimizer("AdamW", _adamw, _ADAM),
    "lion": Optimizer("Lion", _lion, _defaults("b1", "b2"), norm=math.inf),
    "lpsgd": Optimizer("LPSGD", _lpsgd, _ANNEALED, anneals=True),
    "lpsgdm": Optimizer("LPSGDM", _lpsgdm, {**_ANNEALED, **_defaults("b1")}, anneals=True),
    "gsgd": Optimizer("GSGD", _lpsgd, {**_defaults("eps"), **_LENGTH}, norm=math.inf, anneals=True),
    "schatten_sgdm": Optimizer(
        "Schatten SGDM",
        _schatten_sgdm,
        {**_defaults("p", "b1", "eps", "anneal"), "p_final": None, "matrices": "hidden"},
        anneals=True,
    ),
    "muon": Optimizer(
        "Muon", _muon, {**_defaults("eps"), "b1": 0.95, "b2": 0.999, "matrices": "hidden"}, norm=math.inf
    ),
    "stacey_p2": Optimizer("STACEY(p,2)", _stacey(None, 2.0), _STACEY),
    "stacey_pp": Optimizer("STACEY(p,p)", _stacey(None, None), _STACEY),
    "stacey_2p": Optimizer("STACEY(2,p)", _stacey(2.0, None), _STACEY),
}


class Swept(NamedTuple):
    """What may differ between runs that share a compiled step: numbers, or traced."""

    learning_rate: Any  # the peak.
    p: Any = None  # the first and the last, of an optimizer that anneals p between them.
    p_final: Any = None


def swept(settings: Settings) -> Swept:
    """Returns these settings of a run, as numbers."""
    if not _anneals_p(settings):
        return Swept(settings.learning_rate)
    (p,) = _own(settings, "p")
    return Swept(settings.learning_rate, p, final_p(settings))


def without_swept(settings: Settings) -> Settings:
    """Returns what is left of the settings: it decides what is compiled."""
    same = dataclasses.replace(settings, seed=0, learning_rate=1.0)
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
        (anneal,) = _own(settings, "anneal")
        return Schedules(rate, _annealed(values, total, steps_per_epoch if anneal == "epoch" else 1))
    if settings.optimizer == "gsgd":
        return Schedules(rate, lpoptax.gradual_p_schedule(total))
    optimizer = OPTIMIZERS[settings.optimizer]
    return Schedules(rate, _own(settings, "p")[0] if "p" in optimizer.takes else optimizer.norm)


def _learning_rate(settings: Settings, total_steps: int, peak: Any) -> optax.Schedule:
    if settings.schedule == "constant":
        return optax.constant_schedule(peak)
    warmup = total_steps // 20 if settings.warmup_steps is None else settings.warmup_steps
    # As optax.warmup_cosine_decay_schedule, which compares the peak with 0 and so cannot be traced.
    rise, fall = (
        optax.linear_schedule(0.0, peak, warmup),
        optax.cosine_decay_schedule(peak, total_steps - warmup),
    )
    return optax.join_schedules([rise, fall], [warmup])


def _annealed(values: Swept, total_steps: int, steps_per_epoch: int) -> P:
    p, p_final = values.p, values.p_final
    if not isinstance(p, jax.Array) and p == p_final:
        return p
    half_cosine = lpoptax.cosine_p_schedule(3.0, total_steps, steps_per_epoch=steps_per_epoch)

    def rising(weight: jax.Array) -> jax.Array:
        # The exponent 1 / (p - 1) falls along the cosine, as p may rise to infinity.
        first, last = 1 / (p - 1), 1 / (p_final - 1)
        return 1 + 1 / (last + (first - last) * weight)

    def schedule(count: jax.Array) -> jax.Array:
        weight = half_cosine(count) - 2
        falling = jnp.where(jnp.isinf(p), p, p_final + (p - p_final) * weight)
        return jnp.where(jnp.asarray(p_final) > p, rising(weight), falling)

    return schedule


def build_optimizer(
    settings: Settings, steps_per_epoch: int, values: Swept | None = None
) -> optax.GradientTransformation:
    """Returns the optimizer of the run, with `values` in place of the settings that they are of."""
    learning_rate, p = schedules(settings, steps_per_epoch, values)
    mask = _is_kernel if settings.decay == "kernels" else None
    return OPTIMIZERS[settings.optimizer].build(settings, learning_rate, p, mask)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
