"""Decoupled weight decay, as the link that it adds to a chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lpoptax._hyperparameters import check_non_negative, evaluate, is_number
from lpoptax._precision import cast_like, scalar, widen


class DecoupledWeightDecayState(NamedTuple):
    """State of the decay that lpsgd, lpsgdm and stacey add."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=jnp.int32.


def decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule | None,
    mask: optax.MaskOrFn,
    factor: optax.ScalarOrSchedule = 1.0,
) -> list[optax.GradientTransformation]:
    """Returns the link that adds factor * weight_decay * params, or no link if it is off.

    It differs from optax.add_decayed_weights in that both numbers may be schedules, and
    that a schedule in float32 does not promote updates in half precision.
    """
    # What inject_hyperparams makes of a function that it calls as a schedule.
    if mask is False or isinstance(mask, jax.Array):
        raise ValueError(
            "weight_decay_mask must be a function or a tree of bools that is True somewhere, "
            f"got weight_decay_mask={mask} (under inject_hyperparams, name it in static_args)."
        )
    # Left out when off, so that update needs no params.
    if weight_decay is None:
        return []
    check_non_negative("weight_decay", weight_decay, may_be_schedule=True)
    if is_number(weight_decay) and weight_decay == 0:
        return []
    decay = optax.GradientTransformation(_init, _update_fn(weight_decay, factor))
    return [decay if mask is None else optax.masked(decay, mask)]


def _init(params: optax.Params) -> DecoupledWeightDecayState:
    del params
    return DecoupledWeightDecayState(count=jnp.zeros([], jnp.int32))


def _update_fn(
    weight_decay: optax.ScalarOrSchedule, factor: optax.ScalarOrSchedule
) -> optax.TransformUpdateFn:
    def update_fn(
        updates: optax.Updates, state: DecoupledWeightDecayState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, DecoupledWeightDecayState]:
        if params is None:
            raise ValueError("params must be passed to update for weight_decay, got params=None.")
        current_decay, current_factor = evaluate(weight_decay, state.count), evaluate(factor, state.count)

        def decay(u: jax.Array, theta: jax.Array) -> jax.Array:
            wide_u, wide_theta = widen(u, theta)
            rate = scalar(current_factor, wide_u) * scalar(current_decay, wide_u)
            return cast_like(wide_u + rate * wide_theta, u)

        updates = jax.tree.map(
            lambda u, theta: None if u is None else decay(u, theta),
            updates,
            params,
            is_leaf=lambda leaf: leaf is None,
        )
        return updates, DecoupledWeightDecayState(count=optax.safe_increment(state.count))

    return update_fn
