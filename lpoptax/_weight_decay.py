"""Decoupled weight decay, as the links that it adds to a chain."""

import optax

from lpoptax._hyperparameters import check_non_negative, evaluate, is_number


def decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule | None,
    mask: optax.MaskOrFn,
    factor: optax.ScalarOrSchedule = 1.0,
) -> list[optax.GradientTransformation]:
    """Returns the link that adds factor * weight_decay * params, or no link if it is off."""
    check_non_negative("weight_decay", weight_decay)
    # Left out when off: add_decayed_weights demands params even for a rate of zero.
    if weight_decay is None or (is_number(weight_decay) and weight_decay == 0):
        return []
    return [optax.add_decayed_weights(product(factor, weight_decay), mask)]


def product(a: optax.ScalarOrSchedule, b: optax.ScalarOrSchedule) -> optax.ScalarOrSchedule:
    """Returns the product, which is a schedule if one of the factors is."""
    if callable(a) or callable(b):
        return lambda count: evaluate(a, count) * evaluate(b, count)
    return a * b
