"""Breaks of the benchmarks."""

from tests.breaks import Break

BREAKS = [
    Break(
        "benchmarks/data/batches.py",
        "np.random.default_rng((seed, epoch))",
        "np.random.default_rng((seed, 0))",
        "tests/test_batches.py",
    ),
    Break(
        "benchmarks/data/batches.py",
        "self.rows < len(chosen)",
        "self.rows <= len(chosen)",
        "tests/test_batches.py",
    ),
    Break(
        "benchmarks/training/step.py",
        "return totals.nll / totals.number, (",
        "return totals.nll, (",
        "tests/test_training.py",
    ),
    Break(
        "benchmarks/training/step.py",
        "jax.random.fold_in(jax.random.key(seed), step)",
        "jax.random.key(seed)",
        "tests/test_training.py tests/test_batches.py",
    ),
    Break(
        "benchmarks/training/loop.py",
        "state = state._replace(totals=zeros(mesh))",
        "state = state._replace(totals=state.totals)",
        "tests/test_training.py",
    ),
    Break(
        "benchmarks/training/loop.py",
        "if settings.batch_size % devices:",
        "if False:",
        "tests/test_training.py tests/test_benchmarks.py",
    ),
    Break(
        "benchmarks/training/records.py",
        "if len(other.epochs) < len(run.epochs):",
        "if len(other.epochs) > len(run.epochs):",
        "tests/test_report.py tests/test_benchmarks.py",
    ),
    Break(
        "benchmarks/training/records.py",
        "value if math.isfinite(value) else None for key",
        "value for key",
        "tests/test_report.py tests/test_benchmarks.py",
    ),
    Break(
        "benchmarks/training/records.py",
        "if ours[key] != theirs[key]:",
        "if False:",
        "tests/test_learning_rates.py tests/test_benchmarks.py",
    ),
    Break(
        "benchmarks/training/records.py",
        'if epoch["epoch"] <= len(run.epochs):',
        "if False:",
        "tests/test_report.py tests/test_benchmarks.py",
    ),
    Break(
        "benchmarks/config/optimizers.py",
        "leaf.ndim > 1",
        "leaf.ndim > 0",
        "tests/test_selection.py tests/test_training.py",
    ),
    Break(
        "benchmarks/config/optimizers.py",
        "return optax.chain(decay, inner(settings, rate))",
        "return inner(settings, rate)",
        "tests/test_selection.py tests/test_training.py",
    ),
    Break(
        "benchmarks/config/optimizers.py",
        "total_steps // 20",
        "total_steps // 10",
        "tests/test_selection.py tests/test_training.py",
    ),
    Break(
        "benchmarks/config/optimizers.py",
        "takes[name] if value is None else value",
        "takes[name]",
        "tests/test_selection.py",
    ),
    Break(
        "benchmarks/config/optimizers.py",
        "not optimizer.anneals or p == settings.p_final",
        "not optimizer.anneals",
        "tests/test_selection.py",
    ),
    Break(
        "benchmarks/config/settings.py",
        'math.inf if x == "inf" else x',
        "x",
        "tests/test_selection.py tests/test_report.py tests/test_benchmarks.py",
    ),
    Break("benchmarks/config/selection.py", "or rows[:1]", "or rows", "tests/test_selection.py"),
    Break("benchmarks/reporting/comparison.py", "equal_var=False", "equal_var=True", "tests/test_report.py"),
    Break(
        "benchmarks/reporting/comparison.py",
        "return low > 0 or high < 0",
        "return low > 0",
        "tests/test_report.py",
    ),
    Break(
        "benchmarks/reporting/comparison.py",
        "-math.inf if math.isnan(mean) else mean",
        "math.inf if math.isnan(mean) else mean",
        "tests/test_report.py",
    ),
    Break(
        "benchmarks/reporting/tuning.py",
        "math.inf if math.isnan(score) else score",
        "-math.inf if math.isnan(score) else score",
        "tests/test_benchmarks.py tests/test_selection.py tests/test_report.py",
    ),
    Break(
        "benchmarks/data/registry.py",
        'f"train[{description.kept}%:]"',
        'f"train[:{description.kept}%]"',
        "tests/test_datasets.py",
    ),
    Break(
        "benchmarks/models/convolutions.py",
        "j : j + columns : strides[1]",
        "j : j + columns : strides[0] + 1",
        "tests/test_hessian.py",
    ),
    Break(
        "benchmarks/studies/grid_selection.py",
        "return min(found, key=lambda rate: _nll(found[rate]))",
        "return max(found, key=lambda rate: _nll(found[rate]))",
        "tests/test_learning_rates.py",
    ),
]
