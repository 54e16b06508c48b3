"""Settings of the whole test suite."""

import hypothesis
import jax

# Eight devices for the tests of sharding; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)

# A broadcast of ranks that nobody wrote down is a bug in an optimizer.
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a property compiles, which a deadline would count as slow. The same
# examples every time: a test that fails does so for everybody.
hypothesis.settings.register_profile("lpoptax", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("lpoptax")
