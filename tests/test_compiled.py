"""What a TPU's compiler makes of a step, where libtpu is installed: `pip install '.[accelerators]'`."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import lpoptax
from benchmarks.config.settings import SettingsError
from benchmarks.reporting.topologies import compiled_update, measured, mesh_of, placed

pytestmark = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")

P = lpoptax.cosine_p_schedule(6.0, 1000)
LARGE = 1024 * 512  # numbers in a leaf.
SHAPES = {"a": jax.ShapeDtypeStruct((1024, 512), jnp.float32), "b": jax.ShapeDtypeStruct((512,), jnp.float32)}
COORDINATEWISE = {
    "lpsgd": lpoptax.lpsgd(0.1, P),
    "lpsgdm": lpoptax.lpsgdm(0.1, P, weight_decay=0.1),
    "lpsgdm bfloat16": lpoptax.lpsgdm(0.1, P, accumulator_dtype=jnp.bfloat16),
    "stacey p,2": lpoptax.stacey(0.1, 3.0, weight_decay=0.1),
    "stacey p,p": lpoptax.stacey(0.1, P, mirror_p=P),
    "stacey 2,p": lpoptax.stacey(0.1, 2.0, mirror_p=3.0),
}
UNIT_RMS = {
    "whole": lpoptax.lpsgdm(0.1, P, normalization="rms"),
    "by leaf": lpoptax.lpsgdm(0.1, P, normalization="rms", per_leaf=True),
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


@pytest.fixture(scope="module")
def chips():
    """Returns a function that gives a mesh of some chips of a v5e slice."""
    meshes = {1: mesh_of("v5e:2x2", {"data": 1}), 4: mesh_of("v5e:2x2", {"data": 2, "model": 2})}
    return meshes.__getitem__


def told(optimizer, mesh):
    return measured(compiled_update(optimizer, SHAPES, mesh)[0])


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("optimizer", COORDINATEWISE.values(), ids=COORDINATEWISE.keys())
def test_a_coordinatewise_step_has_neither_communication_nor_a_large_temporary(optimizer, number, chips):
    found = told(optimizer, chips(number))
    assert {kind: found[kind] for kind in COLLECTIVES} == dict.fromkeys(COLLECTIVES, 0)
    assert found["temporaries, GiB"] * 2**30 < LARGE / number
    # It reads parameters, state and gradients once, and writes parameters and state.
    known = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((SHAPES, optimizer.init(SHAPES))))
    least = 2 * known + sum(4 * leaf.size for leaf in jax.tree.leaves(SHAPES))
    assert found["HBM, bytes"] * number == pytest.approx(least, rel=1e-2)


@pytest.mark.parametrize("optimizer", UNIT_RMS.values(), ids=UNIT_RMS.keys())
def test_at_unit_rms_devices_share_a_few_numbers_only(optimizer, chips):
    found = told(optimizer, chips(4))
    assert found["all-reduce"] > 0
    assert found["all-reduce, bytes"] < 100
    assert {kind: found[kind] for kind in COLLECTIVES[1:]} == dict.fromkeys(COLLECTIVES[1:], 0)


def test_at_unit_rms_a_chip_stores_no_power_and_reads_the_momentum_twice(chips):
    # Larger than a chip's small memory. Below p = 2 the largest is read first.
    shapes = {"a": jax.ShapeDtypeStruct((8192, 4096), jnp.float32)}
    compiled, _ = compiled_update(UNIT_RMS["whole"], shapes, chips(1))
    found = measured(compiled)
    assert found["temporaries, GiB"] * 2**30 < shapes["a"].size / 100
    # The momentum with the sum of squares, then the step.
    assert found["HBM, bytes"] == pytest.approx((12 + 12) * shapes["a"].size, rel=1e-2)


@pytest.mark.parametrize(
    "optimizer",
    [*COORDINATEWISE.values(), *UNIT_RMS.values()],
    ids=[*COORDINATEWISE, *UNIT_RMS],
)
def test_what_a_step_gives_is_placed_as_what_it_takes(optimizer, chips):
    compiled, _ = compiled_update(optimizer, SHAPES, chips(4))
    (params, state, _), _ = compiled.input_shardings
    given = jax.tree.leaves(compiled.output_shardings)
    taken = jax.tree.leaves((params, state))
    assert len(given) == len(taken)
    for one, other, leaf in zip(given, taken, jax.tree.leaves((SHAPES, optimizer.init(SHAPES))), strict=True):
        assert one.is_equivalent_to(other, leaf.ndim)


def test_whole_matrices_are_exchanged_and_never_gathered(chips):
    mesh = mesh_of("v5e:2x2", {"data": 4})
    shapes = [jax.ShapeDtypeStruct((256, 256), jnp.float32)] * 4
    by_matrix = NamedSharding(mesh, PartitionSpec("data"))

    def gathered(**options):
        optimizer = lpoptax.schatten_sgdm(0.1, jnp.inf, precision="default", ns_steps=1, **options)
        return measured(compiled_update(optimizer, shapes, mesh)[0])

    found = gathered(batch_sharding=by_matrix)
    assert found["all-gather"] == 0
    assert found["all-to-all"] > 0
    # Each chip has a matrix to send and one to receive.
    assert found["all-to-all, bytes"] <= 2 * 256 * 256 * 4
    assert gathered()["all-gather"] > 0


def test_an_unknown_topology_is_one_sentence():
    for topology in ("v5e:3x77", "v99:2x2"):
        with pytest.raises(SettingsError, match=r"^the topology must be one .*, got '" + topology):
            mesh_of(topology, {"data": 4})
    with pytest.raises(SettingsError, match=r"^v5e:2x2 has 4 chips, and \{'data': 8\} needs 8$"):
        mesh_of("v5e:2x2", {"data": 8})


def test_the_first_chips_hold_what_their_axes_divide():
    mesh = mesh_of("v5e:2x2", {"data": 2, "model": 2})
    found = placed({"a": jnp.zeros((6, 8)), "b": jnp.zeros(3), "c": jnp.zeros((3, 4))}, mesh)
    specs = {name: tuple(leaf.sharding.spec) for name, leaf in found.items()}
    assert specs == {"a": ("model", "data"), "b": (None,), "c": (None, "data")}
