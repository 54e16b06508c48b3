"""The image benchmark on tiny datasets in the published formats: the whole way, as users run it."""

import jax
import pytest

from benchmarks.cli import main
from benchmarks.training import runner as sweep
from benchmarks.training.records import read


def trained(folder, *options):
    """Returns what a run with these options measured."""
    main(["images", "--epochs", "1", *map(str, options), "--output", str(folder)])
    (run,) = read(folder)
    (epoch,) = run.epochs
    return run, epoch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "batch_size", "images"),
    [("cifar10", 64, {"train": 640, "held_out": 100}), ("imagenet2012", 16, {"train": 160, "held_out": 16})],
)
def test_ten_steps_on_one_and_on_eight_devices_have_equal_losses(
    dataset, batch_size, images, tiny_data, tmp_path, monkeypatch
):
    options = ("--dataset", dataset, "--model", "resnet8_stride2", "--batch-size", batch_size)
    options += ("--optimizer", "sgdm", "--learning-rate", "0.1", "--data-dir", tiny_data)
    run, on_eight = trained(tmp_path / "eight", *options)
    assert run.examples == images
    mesh = jax.make_mesh(
        (1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    monkeypatch.setattr(sweep, "all_devices", lambda: mesh)
    _, on_one = trained(tmp_path / "one", *options)
    # The order of the sums over a batch differs, and ten steps enlarge that.
    for measured in ("train_nll", "held_out_nll"):
        assert on_eight[measured] == pytest.approx(on_one[measured], rel=1e-3)


@pytest.mark.slow
def test_a_tiny_dataset_is_not_reported_as_the_whole(tiny_data, tmp_path):
    options = (
        "--dataset",
        "cifar10",
        "--model",
        "resnet8_stride2",
        "--optimizer",
        "sgdm",
        "--batch-size",
        64,
    )
    trained(tmp_path, *options, "--learning-rate", "0.1", "--data-dir", tiny_data)
    assert "on cifar10 (640 images to train on, 100 to test)" in (tmp_path / "table.md").read_text("utf-8")
