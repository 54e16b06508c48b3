"""Breaks of the library."""

from tests.breaks import Break

BREAKS = [
    Break(
        "lpoptax/_power.py",
        "float(p) - 1 if is_number(p)",
        "float(p) if is_number(p)",
        "tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_power.py",
        "scalar(1 / (float(p) - 1), like)",
        "scalar(1 / float(p), like)",
        "tests/test_power.py",
    ),
    Break(
        "lpoptax/_power.py",
        "magnitude = jnp.abs(x) + eps\n    return",
        "magnitude = jnp.abs(x)\n    return",
        "tests/test_power.py",
    ),
    Break(
        "lpoptax/_power.py",
        "return jnp.maximum(magnitude, smallest_normal(magnitude))",
        "return magnitude",
        "tests/test_power.py tests/test_modes.py",
    ),
    Break(
        "lpoptax/_power.py",
        "    return jnp.where(exponent == 1, x, scaled)",
        "    return scaled",
        "tests/test_power.py",
    ),
    Break(
        "lpoptax/_power.py",
        "jnp.where(vanishes, 0 * x, quotient",
        "jnp.where(False, 0 * x, quotient",
        "tests/test_power.py",
    ),
    Break(
        "lpoptax/_power.py",
        "return u, tangent + u * factor(jnp.log(magnitude) * dexponent, x)",
        "return u, tangent",
        "tests/test_power.py",
    ),
    Break("lpoptax/_power.py", "* dx) + deps", "* dx)", "tests/test_power.py"),
    Break(
        "lpoptax/_power.py",
        "    return ratio, quotient(dx - ratio * factor(dmagnitude, x), magnitude)",
        "    return ratio, quotient(dx, magnitude)",
        "tests/test_power.py tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_power.py",
        "ScaleByLpPowerState(count=optax.safe_increment(state.count))",
        "ScaleByLpPowerState(count=state.count)",
        "tests/test_lpsgd.py",
    ),
    Break(
        "lpoptax/_binary_power.py",
        "_BITS_OF_SQRT_HALF, _BITS_OF_INFINITY = 0x3F3504F3",
        "_BITS_OF_SQRT_HALF, _BITS_OF_INFINITY = 0x3F000000",
        "tests/test_power.py",
    ),
    Break(
        "lpoptax/_binary_power.py",
        "jnp.where(log > limits.maxexp, jnp.inf, log)",
        "log * jnp.inf",
        "tests/test_modes.py",
    ),
    Break(
        "lpoptax/_binary_power.py", "jnp.where(s == -1, -jnp.inf, s))", "s * jnp.inf)", "tests/test_modes.py"
    ),
    Break(
        "lpoptax/_binary_power.py",
        "jnp.where(log < limits.minexp, 0,",
        "jnp.where(log < -1e9, 0,",
        "tests/test_power.py tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_binary_power.py",
        "coarse = _from_bits(_to_bits(exponent) & ~0xFFF)",
        "coarse = exponent",
        "tests/test_power.py",
    ),
    Break("lpoptax/_binary_power.py", "t = jnp.where(k == 0, s, t)", "t = t", "tests/test_mirror_descent.py"),
    Break(
        "lpoptax/_binary_power.py",
        "jnp.where(nearest == 0, growth, factor - 1)",
        "factor - 1",
        "tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_binary_power.py",
        "0x3F3504F3, 0x7F800000",
        "jnp.int64(0x3F3504F3), 0x7F800000",
        "tests/test_modes.py",
    ),
    Break(
        "lpoptax/_precision.py",
        "return jnp.dtype(jnp.float32) if is_small else dtype",
        "return dtype",
        "tests/test_modes.py",
    ),
    Break(
        "lpoptax/_precision.py",
        "jnp.promote_types, dtypes, jnp.dtype(jnp.float32)",
        "jnp.promote_types, dtypes",
        "tests/test_precision.py tests/test_normalization.py",
    ),
    Break("lpoptax/_precision.py", "None if u is None else function", "function", "tests/test_contract.py"),
    Break(
        "lpoptax/_precision.py",
        "    return x.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else x",
        "    return x",
        "tests/test_precision.py tests/test_modes.py",
    ),
    Break(
        "lpoptax/_momentum.py",
        "if is_number(b1) and is_number(b2) and b1 <= b2 > 0:",
        "if is_number(b1) and is_number(b2):",
        "tests/test_momentum.py",
    ),
    Break(
        "lpoptax/_momentum.py", "_average(g, new, b1 / b2)", "_average(g, new, b1)", "tests/test_momentum.py"
    ),
    Break("lpoptax/_momentum.py", "factor(1.0 - decay, m) * g", "g", "tests/test_momentum.py"),
    Break(
        "lpoptax/_momentum.py",
        "zeros_like(params, dtype=mu_dtype)",
        "zeros_like(params)",
        "tests/test_precision.py tests/test_momentum.py",
    ),
    Break(
        "lpoptax/_coupling.py",
        "jnp.where(weight == 0, 0, weight * (z - theta))",
        "weight * (z - theta)",
        "tests/test_coupling.py",
    ),
    Break("lpoptax/_coupling.py", "(1 - weight) * wide_u", "wide_u", "tests/test_stacey.py"),
    Break(
        "lpoptax/_coupling.py",
        "dtype=dtype, copy=True)",
        "dtype=dtype, copy=False)",
        "tests/test_contract.py",
    ),
    Break(
        "lpoptax/_coupling.py",
        "dual.update(updates, state.dual_state, state.z, ",
        "dual.update(updates, state.dual_state, params, ",
        "tests/test_stacey.py",
    ),
    Break("lpoptax/_stacey.py", "_negative(learning_rate))", "-1.0)", "tests/test_stacey.py"),
    Break(
        "lpoptax/_mirror_descent.py",
        "jnp.where(z_is_larger, 0, log_pull * inverse)",
        "log_pull * inverse",
        "tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_mirror_descent.py",
        "-jnp.sign(pull) * scaled - z)",
        "jnp.sign(pull) * scaled - z)",
        "tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_mirror_descent.py",
        "(1 / exponent - 1, z)",
        "(1 / exponent, z)",
        "tests/test_mirror_descent.py",
    ),
    Break(
        "lpoptax/_scaling.py",
        "jnp.where(exponent > 1, 0, scalar(eps, g))",
        "scalar(eps, g)",
        "tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_scaling.py",
        "return largest() if below_2 else one",
        "return one",
        "tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_scaling.py",
        "jax.lax.cond(exponent > 1, largest, lambda: one)",
        "one",
        "tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_scaling.py",
        "scale = jnp.where(is_fine, one, jnp.where(is_small, one * up, one / up))",
        "scale = one",
        "tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_scaling.py",
        "jax.lax.cond(is_fine, lambda: plain, lambda: total(scale))",
        "total(scale)",
        "tests/test_devices.py",
    ),
    Break(
        "lpoptax/_steepest_descent.py",
        "** ((1 - exponent) / (1 + exponent))",
        "** (1 - exponent)",
        "tests/test_steepest_descent.py",
    ),
    Break(
        "lpoptax/_steepest_descent.py",
        '@functools.partial(jax.jit, static_argnames="below_2")\n',
        "",
        "tests/test_modes.py",
    ),
    Break(
        "lpoptax/_steepest_descent.py",
        "            if per_leaf\n",
        "            if not per_leaf\n",
        "tests/test_steepest_descent.py",
    ),
    Break(
        "lpoptax/_normalization.py",
        "jnp.where(total == 0, 1, total / factor(size, total))",
        "total / factor(size, total)",
        "tests/test_normalization.py",
    ),
    Break(
        "lpoptax/_normalization.py",
        "float(size) if isinstance(size, int) else size",
        "float(size)",
        "tests/test_programs.py",
    ),
    Break(
        "lpoptax/_normalization.py",
        "by_leaf = per_leaf or normalization is None",
        "by_leaf = per_leaf",
        "tests/test_lpsgd.py",
    ),
    Break("lpoptax/_weight_decay.py", "optax.masked(decay, mask)", "decay", "tests/test_lpsgd.py"),
    Break(
        "lpoptax/_weight_decay.py",
        "factor(factor_of_decay, wide_u) * factor(weight_decay, wide_u)",
        "factor(weight_decay, wide_u)",
        "tests/test_stacey.py",
    ),
    Break(
        "lpoptax/_schedules.py",
        "epoch = jnp.asarray(count) // steps_per_epoch",
        "epoch = jnp.asarray(count) / steps_per_epoch",
        "tests/test_schedules.py",
    ),
    Break(
        "lpoptax/_schedules.py",
        "last_epoch = max(math.ceil(total_steps / steps_per_epoch) - 1, 1)",
        "last_epoch = math.ceil(total_steps / steps_per_epoch) - 1",
        "tests/test_schedules.py",
    ),
    Break(
        "lpoptax/_hyperparameters.py",
        "lambda v: v > 1, allowed",
        "lambda v: v >= 1, allowed",
        "tests/test_power.py tests/test_lpsgd.py",
    ),
    Break(
        "lpoptax/_hyperparameters.py", "is_fine = may_be_schedule", "is_fine = True", "tests/test_contract.py"
    ),
]
