"""Decoupled weight decay, as a link of a chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lpoptax._hyperparameters import check_non_negative, evaluate, is_number
from lpoptax._precision import cast_like, factor, map_leaves, widen


class DecoupledWeightDecayState(NamedTuple):
    """State of the decay that lpsgd, lpsgdm and stacey add."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=jnp.int32.


def decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule | None,
    mask: optax.MaskOrFn,
    factor_of_decay: optax.ScalarOrSchedule = 1.0,
) -> optax.GradientTransformation:
    """Returns the link that adds factor_of_decay * weight_decay * params.

    It differs from optax.add_decayed_weights in four ways: both numbers may be schedules; its state has
    one structure, so that a checkpoint survives when decay is switched on or off; without decay it needs
    no params; and a schedule in float32 does not promote updates in half precision.
    """
    # What inject_hyperparams makes of a function that it calls as a schedule.
    if mask is False or isinstance(mask, jax.Array):
        raise ValueError(
            "weight_decay_mask must be a function or a tree of bools that is True somewhere, "
            f"got weight_decay_mask={mask} (under inject_hyperparams, name it in static_args)."
        )
    is_off = weight_decay is None or (is_number(weight_decay) and weight_decay == 0)
    if weight_decay is not None:
        check_non_negative("weight_decay", weight_decay, may_be_schedule=True)

    rates = None if is_off else (factor_of_decay, weight_decay)
    decay = optax.GradientTransformation(_init, _update_fn(rates))
    return decay if mask is None else optax.masked(decay, mask)


def _init(params: optax.Params) -> DecoupledWeightDecayState:
    del params
    return DecoupledWeightDecayState(count=jnp.zeros([], jnp.int32))


def _update_fn(rates: tuple[optax.ScalarOrSchedule, ...] | None) -> optax.TransformUpdateFn:
    def update_fn(
        updates: optax.Updates, state: DecoupledWeightDecayState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, DecoupledWeightDecayState]:
        if rates is not None:
            if params is None:
                raise ValueError("params must be passed to update for weight_decay, got params=None.")
            current = [evaluate(rate, state.count) for rate in rates]
            updates = map_leaves(lambda u, theta: _decay(u, theta, *current), updates, params)
        return updates, DecoupledWeightDecayState(count=optax.safe_increment(state.count))

    return update_fn


def _decay(u: jax.Array, theta: jax.Array, factor_of_decay: ArrayLike, weight_decay: ArrayLike) -> jax.Array:
    wide_u, wide_theta = widen(u, theta)
    rate = factor(factor_of_decay, wide_u) * factor(weight_decay, wide_u)
    return cast_like(wide_u + rate * wide_theta, u)
