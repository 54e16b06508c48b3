"""Settings of the whole test suite."""

import subprocess
import sys

import hypothesis
import jax
import pytest

# Eight devices for the tests of sharding; all else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)

# A broadcast of ranks that nobody wrote down is a bug in an optimizer.
jax.config.update("jax_numpy_rank_promotion", "raise")

# The first example of a property compiles, which a deadline would count as slow. The same
# examples every time: a test that fails does so for everybody.
hypothesis.settings.register_profile("lpoptax", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("lpoptax")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Returns a folder with tiny datasets, for `data_dir`."""
    folder = tmp_path_factory.mktemp("tiny")
    # In a process of its own, so that TensorFlow is not loaded next to what is tested.
    command = [sys.executable, "-m", "tests.archives", folder, "cifar10", "cifar100", "imagenet2012", "c4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 4
    assert done.stderr == ""
    return folder
