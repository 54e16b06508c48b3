"""Batches and their random changes: a function of seed and step, on any devices."""

import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.data.augmentation import PADDING, augment, normalise
from benchmarks.data.batches import _Steps, evaluation_batches, training_batches

SIZE = 22


class Numbered:
    """A split whose labels are the indices, as are the pixels; keeps what was asked for."""

    def __init__(self, size=SIZE):
        """Makes a split of so many images."""
        self.size, self.asked, self._lock = size, [], threading.Lock()

    def __len__(self):
        """Returns the number of images."""
        return self.size

    def load(self, indices, seed):
        """Returns images and labels."""
        with self._lock:  # several threads load at once.
            self.asked.append((indices.tolist(), seed))
        images = np.broadcast_to(indices[:, None, None, None], (len(indices), 2, 3, 1))
        return images.astype(np.uint8), indices.astype(np.int32)


def mesh_of(count):
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def labels_of(batches):
    return [np.asarray(batch.labels).tolist() for batch in batches]


def trained(*, batch_size=4, seed=0, start=0, stop=5, devices=1, split=None):
    split = Numbered() if split is None else split
    return list(training_batches(split, batch_size, mesh_of(devices), seed=seed, start=start, stop=stop))


def test_an_epoch_has_every_image_once_but_for_the_rest():
    epochs = [labels_of(trained(start=5 * epoch, stop=5 * epoch + 5)) for epoch in range(20)]
    for epoch in epochs:
        seen = list(itertools.chain(*epoch))
        assert len(seen) == len(set(seen)) == 20
        assert set(seen) < set(range(SIZE))
    # The two that are left out are not the same in all epochs.
    assert set(itertools.chain(*itertools.chain(*epochs))) == set(range(SIZE))


def test_each_epoch_and_each_seed_has_its_own_order():
    orders = [tuple(itertools.chain(*labels_of(trained(seed=seed, stop=15)))) for seed in (0, 1)]
    parts = [order[begin : begin + 20] for order in orders for begin in (0, 20, 40)]
    assert len(set(parts)) == 6
    assert orders[0] == tuple(itertools.chain(*labels_of(trained(stop=15))))


@pytest.mark.parametrize("start", [0, 3, 5, 11])
def test_starting_late_is_skipping(start):
    assert labels_of(trained(start=start, stop=12)) == labels_of(trained(stop=12))[start:]


def test_the_images_and_labels_stay_together():
    for batch in trained():
        np.testing.assert_array_equal(batch.inputs[:, 0, 0, 0], batch.labels)
        assert (batch.inputs.dtype, batch.labels.dtype, batch.weights.dtype) == (
            jnp.uint8,
            jnp.int32,
            jnp.float32,
        )
        np.testing.assert_array_equal(batch.weights, 1)


def test_loading_is_seeded_by_seed_and_epoch_in_training_only():
    split = Numbered()
    trained(split=split, seed=7, start=3, stop=7)
    assert sorted(seed for _, seed in split.asked) == [(7, 0), (7, 0), (7, 1), (7, 1)]
    split = Numbered()
    list(evaluation_batches(split, 8, mesh_of(1)))
    assert {seed for _, seed in split.asked} == {None}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("size", [3, 8, SIZE, 24])
def test_evaluation_weighs_each_image_once(size, devices):
    batches = list(evaluation_batches(Numbered(size), 8, mesh_of(devices)))
    assert {len(batch.labels) for batch in batches} == {8}
    assert len(batches) == -(-size // 8)
    labels = np.concatenate([batch.labels for batch in batches])
    weights = np.concatenate([batch.weights for batch in batches])
    assert labels[weights == 1].tolist() == list(range(size))
    assert np.all(weights[size:] == 0)


def test_eight_devices_hold_the_rows_of_one_in_order():
    alone, spread = trained(batch_size=16, stop=3), trained(batch_size=16, stop=3, devices=8)
    for one, eight in zip(alone, spread, strict=True):
        for whole, split in zip(one, eight, strict=True):
            np.testing.assert_array_equal(whole, split)
            assert not split.sharding.is_fully_replicated
            for shard in split.addressable_shards:
                first = 2 * shard.device.id
                np.testing.assert_array_equal(shard.data, whole[first : first + 2])


class OtherProcess:
    """Stands for the sharding of a process that has devices 2 and 3 of eight."""

    def __init__(self, sharding):
        """Takes the sharding of a process that has all."""
        self._sharding = sharding

    def addressable_devices_indices_map(self, shape):
        """Returns the rows of two devices."""
        rows = self._sharding.devices_indices_map(shape)
        return {device: index for device, index in rows.items() if device.id in (2, 3)}


def test_a_process_loads_the_rows_of_its_devices_only(monkeypatch):
    monkeypatch.setattr(
        "benchmarks.data.batches.NamedSharding", lambda *arguments: OtherProcess(NamedSharding(*arguments))
    )
    split = Numbered()
    steps = _Steps(split, lambda step: (np.arange(20, 31), (0, 0)), 1, 16, mesh_of(8))
    _, labels, weights = steps[0]
    # Rows 4 to 7 of sixteen.
    assert split.asked == [([24, 25, 26, 27], (0, 0))]
    assert labels.tolist() == [24, 25, 26, 27]
    assert weights.tolist() == [1, 1, 1, 1]


def images_of(n, height=9, width=7, channels=2):
    """Returns images of which no two pixels of a channel are equal, none of them black."""
    rng = np.random.default_rng(0)
    pixels = [1 + rng.permutation(255)[: height * width] for _ in range(n * channels)]
    stacked = np.stack(pixels).reshape(n, channels, height, width)
    return np.moveaxis(stacked, 1, -1).astype(np.uint8)


def placements(image):
    """Returns every crop of a padded image, and whether it is a mirror image of that."""
    height, width, _ = image.shape
    padded = np.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    corners = itertools.product(range(2 * PADDING + 1), repeat=2)
    crops = {corner: padded[corner[0] :, corner[1] :][:height, :width] for corner in corners}
    return {
        (*corner, flip): crop[:, ::-1] if flip else crop for corner, crop in crops.items() for flip in (0, 1)
    }


def placement(image, changed):
    """Returns the one crop and flip that changes an image in this way."""
    (found,) = [key for key, crop in placements(image).items() if np.array_equal(crop, changed)]
    return found


def test_a_crop_and_flip_is_a_window_of_the_image_on_black():
    images = images_of(400)
    changed = np.asarray(augment("crop_flip", jax.random.key(0), images))
    drawn = np.array([placement(*pair) for pair in zip(images, changed, strict=True)])
    rows, columns, flips = drawn.T
    # Each of the nine offsets and both directions about equally often: within five standard
    # deviations of a binomial count.
    for counts, chance in (
        (np.bincount(rows, minlength=9), 1 / 9),
        (np.bincount(columns, minlength=9), 1 / 9),
        (np.bincount(flips, minlength=2), 1 / 2),
    ):
        assert np.all(np.abs(counts - 400 * chance) < 5 * np.sqrt(400 * chance * (1 - chance)))
    # Independently of each other: no correlation beyond five standard errors.
    assert np.all(np.abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]) < 5 / np.sqrt(400))


def test_a_flip_mirrors_about_half_and_moves_none():
    images = images_of(400)
    changed = np.asarray(augment("flip", jax.random.key(0), images))
    mirrored = np.array([np.array_equal(*pair) for pair in zip(changed, images[:, :, ::-1], strict=True)])
    np.testing.assert_array_equal(changed[~mirrored], images[~mirrored])
    assert abs(mirrored.sum() - 200) < 5 * np.sqrt(100)


def test_no_augmentation_changes_nothing():
    images = images_of(3)
    assert augment(None, jax.random.key(0), images) is images


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_the_key_decides_the_augmentation(kind):
    images = images_of(50)
    first, again, other = (np.asarray(augment(kind, jax.random.key(seed), images)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_augmentation_on_eight_devices_is_that_on_one(kind):
    images = images_of(16)
    mesh = mesh_of(8)
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("batch")))
    changed = jax.jit(augment, static_argnums=0)(kind, jax.random.key(3), spread)
    assert changed.dtype == jnp.uint8
    np.testing.assert_array_equal(changed, augment(kind, jax.random.key(3), images))


def test_normalising_scales_each_channel():
    images = np.arange(48, dtype=np.uint8).reshape(2, 4, 2, 3)
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    scaled = normalise(images, mean, std)
    assert scaled.dtype == jnp.float32
    # One rounding each of the difference, of the divisor and of the quotient.
    np.testing.assert_allclose(scaled, (images - np.array(mean)) / np.array(std), rtol=1e-6)
