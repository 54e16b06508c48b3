"""Tables, verdicts and curves from made-up records, and the choice of tuned settings."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import special

from benchmarks.config.labels import label
from benchmarks.config.selection import select
from benchmarks.config.settings import Settings
from benchmarks.reporting import report
from benchmarks.reporting import tuning as tune
from benchmarks.reporting.comparison import workloads
from benchmarks.reporting.curves import curves
from benchmarks.reporting.statistics import frame_of
from benchmarks.training.records import FolderError, ResultsFolder, Run

ENVIRONMENT = {
    "python": "3.11.1",
    "lpoptax": "0.1",
    "jax": "0.10.2",
    "jaxlib": "0.10.2",
    "optax": "0.2.8",
    "flax": "0.12.8",
    "numpy": "2.0.0",
    "machine": "x86_64, 2 of 2 CPUs",
    "devices": "1 x cpu",
}
IMAGES = {
    "cifar10": {"train": 50_000, "held_out": 10_000},
    "cifar100": {"train": 50_000, "held_out": 10_000},
    "imagenet2012": {"train": 1_281_167, "held_out": 50_000},
}
SMALL = {"train": 1200, "held_out": 597}
SGDM = Settings("digits", "resnet8", "sgdm", 50, 3, 0.1, 0.001, b1=0.9)
ADAMW = dataclasses.replace(SGDM, optimizer="adamw", learning_rate=0.01)
LPSGDM = dataclasses.replace(SGDM, optimizer="lpsgdm", p=6.0)
NAN = math.nan


def record(settings, *, top1, nll=0.5, seed=0, epochs=None):
    """Returns a run that ends with this top-1, in per cent, and this train NLL."""
    total = settings.epochs
    lines = [
        {
            "epoch": number,
            "train_nll": nll * total / number,
            "train_top1": 0.5,
            "held_out_nll": nll * total / number,
            "held_out_top1": top1 / 100 * number / total,
            "seconds": 2.0,
            "waiting": 0.0,
        }
        for number in range(1, total + 1)
    ]
    return Run(
        dataclasses.replace(settings, seed=seed),
        ENVIRONMENT,
        IMAGES.get(settings.dataset, SMALL),
        lines[:epochs],
    )


def seeds(settings, top1s, nlls=None, **options):
    nlls = [0.5] * len(top1s) if nlls is None else nlls
    return [
        record(settings, top1=top1, nll=nll, seed=seed, **options)
        for seed, (top1, nll) in enumerate(zip(top1s, nlls, strict=True))
    ]


def tables(runs, at=None):
    """Returns the rows of each table, as dictionaries."""
    found = []
    for workload in workloads(runs):
        table = report.tabulate(workload, at)
        assert table.columns.is_unique or "published" in table
        found.append([dict(zip(table, row, strict=True)) for row in table.to_numpy()])
    return found


def texts(runs):
    return [report.explain(workload) for workload in workloads(runs)]


def test_a_row_has_mean_and_standard_deviation_over_the_seeds():
    top1s, nlls = [90.0, 92.5, 93.0], [0.1, 0.2, 0.6]
    [[row]] = tables(seeds(SGDM, top1s, nlls))
    assert row == {
        "optimizer": "SGD with momentum",
        "p": "2",
        "learning rate": "0.1",
        "weight decay": "0.001",
        "train NLL": "0.3000 ± 0.2646",
        "test top-1, %": "91.83 ± 1.61",
    }
    assert row["train NLL"] == f"{np.mean(nlls):.4f} ± {np.std(nlls, ddof=1):.4f}"
    assert row["test top-1, %"] == f"{np.mean(top1s):.2f} ± {np.std(top1s, ddof=1):.2f}"


def test_one_seed_has_no_deviation():
    [[row]] = tables([record(SGDM, top1=91)])
    assert (row["train NLL"], row["test top-1, %"]) == ("0.5000", "91.00")


def test_figures_can_be_those_of_chosen_epochs():
    [[row]] = tables(seeds(SGDM, [60.0, 90.0]), at=[1, 3, 7])
    assert row["test top-1, %, epoch 1"] == "25.00 ± 7.07"
    assert row["test top-1, %, epoch 3"] == "75.00 ± 21.21"
    assert row["train NLL, epoch 1"] == "1.5000 ± 0.0000"
    assert not any("epoch 7" in name for name in row)  # a run has three.


def cifar10(optimizer, paper=None):
    """Returns the settings of a paper's run."""
    (settings,) = select("cifar10", "resnet18", [optimizer], [0], {}, paper=paper)
    return settings


def test_what_the_papers_publish_stands_beside():
    workload, *_ = workloads(seeds(cifar10("lpsgdm"), [90.0]))
    table = report.tabulate(workload, [50, 100, 200])
    ((*row,),) = table.to_numpy()
    beside = {
        name: published
        for name, beside, published in zip(table, table.columns[1:], row[1:], strict=False)
        if beside.startswith("published")
    }
    assert beside == {
        "train NLL, epoch 50": "0.0498 ± 0.0027 (lpsgdm)",
        "test top-1, %, epoch 50": "92.12 ± 0.49 (lpsgdm)",
        "train NLL, epoch 100": "0.0021 ± 0.0000 (lpsgdm)",
        "test top-1, %, epoch 100": "93.68 ± 0.02 (lpsgdm)",
        "train NLL, epoch 200": "0.0004 ± 0.0002 (lpsgdm)",
        "test top-1, %, epoch 200": "94.81 ± 0.19 (lpsgdm)",
    }


def test_a_paper_stands_beside_its_own_settings():
    for paper, published in (("lpsgdm", "94.09 ± 0.17 (lpsgdm)"), ("stacey", "91.89 (stacey)")):
        workload, *_ = workloads(seeds(cifar10("adamw", paper), [90.0]))
        table = report.tabulate(workload)
        assert table.iloc[0, table.columns.get_loc("test top-1, %") + 1] == published


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "fashion_mnist"},
        {"model": "resnet8"},
        {"epochs": 201},
        {"held_out": "validation"},
        {"p": 8.0},
        {"learning_rate": 0.01},
        {"batch_size": 256},
    ],
)
def test_nothing_is_published_for_anything_else(changes):
    [[row]] = tables(seeds(dataclasses.replace(cifar10("lpsgdm"), **changes), [90.0]), [200])
    assert not any(name.startswith("published") for name in row)


def test_nothing_is_published_for_a_part_of_the_data_and_it_says_how_much_there_was():
    whole = seeds(cifar10("lpsgdm"), [90.0])
    part = [dataclasses.replace(run, examples={"train": 640, "held_out": 100}) for run in whole]
    [[whole_row], [part_row]] = tables([*whole, *part])
    assert "published" in whole_row
    assert "published" not in part_row
    text = report.markdown(part)
    assert "resnet18 on cifar10 (640 images to train on, 100 to test) with batches of 128." in text


def welch(a, b):
    """Returns the interval of the difference of means, from its formula."""
    a, b = np.array(a), np.array(b)
    ours, theirs = (values.var(ddof=1) / len(values) for values in (a, b))
    freedom = (ours + theirs) ** 2 / (ours**2 / (len(a) - 1) + theirs**2 / (len(b) - 1))
    half = special.stdtrit(freedom, 0.975) * np.sqrt(ours + theirs)
    return a.mean() - b.mean() - half, a.mean() - b.mean() + half


@pytest.mark.parametrize(
    ("best", "other"),
    [
        ([93.0, 94.0, 95.5], [91.0, 90.0, 90.5, 91.5]),
        ([93.0, 94.0], [92.0, 93.5]),
        ([93.0, 93.0, 93.0], [92.0, 92.5, 90.0]),
        ([93.1, 93.1, 93.1], [92.0, 92.5, 90.0]),
        ([93.0, 93.0], [92.0, 92.0]),
    ],
)
def test_the_distance_to_the_best_is_a_welch_interval(best, other):
    [[sgdm, adamw]] = tables(seeds(SGDM, best) + seeds(ADAMW, other))
    low, high = welch(other, best) if np.ptp(best) + np.ptp(other) else (-1.0, -1.0)
    assert sgdm["minus the best (95 %)"] == "best"
    assert adamw["minus the best (95 %)"] == f"{low:+.2f} to {high:+.2f}"


def test_the_verdict_names_whom_the_best_cannot_be_told_from():
    runs = (
        seeds(SGDM, [93.0, 94.0, 93.5]) + seeds(ADAMW, [92.0, 94.5, 93.0]) + seeds(LPSGDM, [80.0, 81.0, 80.5])
    )
    [text] = texts(runs)
    assert "The highest test top-1 is that of SGD with momentum. Within noise of it" in text
    assert "(95 % Welch interval): AdamW. " in text


def test_the_verdict_names_nobody_who_is_clearly_worse():
    [text] = texts(seeds(SGDM, [80.0, 81.0, 80.5]) + seeds(LPSGDM, [93.0, 94.0, 93.5]))
    assert "The highest test top-1 is that of LPSGDM, p 6 → 2. " in text
    assert "noise" not in text


def test_single_runs_decide_nothing():
    [text] = texts(seeds(SGDM, [80.0]) + seeds(LPSGDM, [93.0]))
    assert text.startswith("One seed, ")
    assert "From single runs no difference can be told from noise." in text
    [rows] = tables(seeds(SGDM, [80.0]) + seeds(LPSGDM, [93.0, 94.0]))
    assert not any("minus the best (95 %)" in row for row in rows)


@pytest.mark.parametrize("diverged", [[NAN, NAN], [NAN, 0.5], [math.inf, math.inf], [math.inf, 0.5]])
@pytest.mark.parametrize(("bad", "good"), [(SGDM, ADAMW), (ADAMW, SGDM)])
def test_diverged_runs_do_not_win(diverged, bad, good, tmp_path):
    runs = seeds(good, [90.0, 91.0]) + seeds(bad, [10.0, 10.0], diverged)
    [text] = texts(runs)
    name = "SGD with momentum" if good is SGDM else "AdamW"
    assert f"The highest test top-1 is that of {name}." in text
    assert "Within noise" not in text
    report.write(ResultsFolder(tmp_path), runs)
    assert "nan" in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("diverged", [NAN, math.inf])
def test_a_comparison_of_diverged_runs_is_written(diverged, tmp_path):
    report.write(ResultsFolder(tmp_path), seeds(SGDM, [10.0, 10.0], [diverged] * 2))
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_unfinished_runs_are_named_and_not_counted():
    runs = [
        *seeds(SGDM, [90.0, 92.0]),
        record(SGDM, top1=60, seed=2, epochs=2),
        record(LPSGDM, top1=60, seed=4, epochs=1),
    ]
    [[row]] = tables(runs)
    assert row["test top-1, %"] == "91.00 ± 1.41"
    [text] = texts(runs)
    assert "over 2 seeds" in text
    assert "SGD with momentum with seed 2 was at 40.00 % test top-1 after epoch 2." in text
    assert "LPSGDM, p 6 → 2 with seed 4 was at 20.00 % test top-1 after epoch 1." in text


def test_without_a_finished_run_there_is_text_but_no_table(tmp_path):
    runs = [record(SGDM, top1=60, epochs=2), record(ADAMW, top1=60, epochs=0)]
    assert report.write(ResultsFolder(tmp_path), runs) == ["table.md"]
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "No run has finished. SGD with momentum with seed 0 was at 40.00 %" in text
    assert "|" not in text


def measured(run, numbers):
    """Returns a run of which only these epochs are on record."""
    lines = {epoch["epoch"]: epoch for epoch in run.epochs}
    return dataclasses.replace(run, epochs=[{**lines.get(number, {}), "epoch": number} for number in numbers])


def test_runs_that_lack_epochs_or_losses_are_left_out():
    whole, *_, lacking = seeds(SGDM, [90.0, 80.0]) + seeds(ADAMW, [70.0])
    without_loss = [{key: x for key, x in epoch.items() if key != "train_nll"} for epoch in lacking.epochs]
    for left_out in (measured(lacking, [3]), dataclasses.replace(lacking, epochs=without_loss)):
        assert tables([whole, left_out]) == tables([whole])
        with pytest.raises(FolderError, match="there is nothing to report"):
            report.markdown([left_out])


def test_what_was_measured_before_the_first_epoch_is_no_epoch():
    before = measured(record(SGDM, top1=91), [0, 1, 2, 3])
    assert tables([before], [1, 3]) == tables([record(SGDM, top1=91)], [1, 3])
    [text] = texts([measured(record(SGDM, top1=90), [0, 1, 2])])
    assert "with seed 0 was at 60.00 % test top-1 after epoch 2." in text


def test_what_sets_optimizers_apart_has_a_column():
    other = dataclasses.replace(SGDM, dtype="bfloat16", schedule="constant")
    [[first, second]] = tables(seeds(other, [90.0]) + seeds(ADAMW, [80.0]))
    assert (first["dtype"], second["dtype"]) == ("bfloat16", "float32")
    assert (first["schedule"], second["schedule"]) == ("constant", "warmup_cosine")
    [[first, second]] = tables(seeds(SGDM, [90.0]) + seeds(ADAMW, [80.0]))
    assert "dtype" not in first
    assert "b1" not in first  # a hyperparameter means another thing in another optimizer.


def test_the_same_records_give_the_same_files(tmp_path):
    for folder in ("one", "two"):
        report.write(ResultsFolder(tmp_path / folder), seeds(SGDM, [90.0, 92.0]))
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_names_tell_apart_only_what_has_the_same_name():
    runs = seeds(LPSGDM, [90.0, 91.0]) + seeds(
        dataclasses.replace(LPSGDM, p=3.0, learning_rate=0.5), [80.0, 81.0]
    )
    [text] = texts(runs)
    assert "is that of LPSGDM, p 6 → 2." in text
    [text] = texts(runs + seeds(dataclasses.replace(LPSGDM, learning_rate=0.5), [99.0, 98.0]))
    assert "is that of LPSGDM, p 6 → 2, learning rate 0.5." in text


def test_a_single_seed_is_not_what_the_others_are_compared_with():
    runs = seeds(SGDM, [90.0, 91.0]) + seeds(ADAMW, [80.0, 81.0]) + seeds(LPSGDM, [99.0])
    [text] = texts(runs)
    assert "The highest test top-1 of several seeds is that of SGD with momentum." in text


def test_what_was_varied_has_a_column():
    tried = [dataclasses.replace(SGDM, b1=b1) for b1 in (0.8, 0.9)]
    [[first, second]] = tables([run for setting in tried for run in seeds(setting, [90.0])])
    assert (first["b1"], second["b1"]) == ("0.8", "0.9")


def test_environments_are_told():
    here = record(SGDM, top1=90)
    there = dataclasses.replace(
        record(SGDM, top1=90, seed=1), environment={**ENVIRONMENT, "devices": "8 x TPU v4"}
    )
    versions = "python 3.11.1, jax 0.10.2, flax 0.12.8, optax 0.2.8 on x86_64, 2 of 2 CPUs, devices: "
    [text] = texts([here, there])
    assert text.endswith(f"Measured with {versions}1 x cpu; and with {versions}8 x TPU v4.")


def test_files_hold_the_table(tmp_path):
    runs = seeds(SGDM, [90.0, 92.0]) + seeds(LPSGDM, [93.0, 94.0])
    names = report.write(ResultsFolder(tmp_path), runs)
    assert names == ["table.md", "table.csv", "curves.png", "curves.svg"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    table = report.tabulate(*workloads(runs))
    columns, rows = list(table), table.to_numpy().tolist()
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert list(csv.reader(io.StringIO(text))) == [columns, *rows]
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.strip("| ").split(" | ") for line in lines[2:4]] == rows
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "curves.svg").read_text(encoding="utf-8")


def test_the_table_on_the_console_fits_into_80_columns():
    console = Console(width=80, file=io.StringIO())
    report.show(seeds(SGDM, [90.0, 92.0]) + seeds(LPSGDM, [93.0, 94.0]), console)
    text = console.file.getvalue()
    for cell in ("91.00 ± 1.41", "93.50 ± 0.71", "6 → 2", "The highest"):
        assert cell in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "cifar10"},
        {"model": "resnet20"},
        {"epochs": 2},
        {"batch_size": 60},
        {"held_out": "validation"},
    ],
)
def test_several_workloads_have_their_own_tables_and_files(changes, tmp_path):
    other = dataclasses.replace(LPSGDM, **changes)
    runs = seeds(SGDM, [90.0]) + seeds(other, [80.0])
    assert [len(table) for table in tables(runs)] == [1, 1]
    report.write(ResultsFolder(tmp_path), runs[:1])  # whose files would mislead beside the others.
    names = report.write(ResultsFolder(tmp_path), runs)
    assert len(names) == len(set(names)) == 7
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    files = [(tmp_path / name).read_text(encoding="utf-8") for name in names if name.endswith(".csv")]
    assert ["90.00" in text for text in files] == [True, False]
    assert ["80.00" in text for text in files] == [False, True]


def test_curves_show_means_and_have_labels():
    annealed = seeds(LPSGDM, [93.0, 94.0])
    for run in annealed:
        for epoch, value in zip(run.epochs, (6.0, 4.0, 2.0), strict=True):
            epoch["p"] = value
    names = {setting: label(setting) for setting in (SGDM, LPSGDM)}
    figure = curves(frame_of(seeds(SGDM, [90.0, 60.0]) + annealed), names, "a title")
    nll, error, p = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "train NLL",
        "test error, %",
        "p, end of epoch",
    ]
    assert p.get_xlabel() == "epoch"
    np.testing.assert_allclose(nll.lines[0].get_xydata(), [[1, 1.5], [2, 0.75], [3, 0.5]])
    np.testing.assert_allclose(error.lines[0].get_ydata(), [75, 50, 25])
    np.testing.assert_allclose(p.lines[0].get_ydata(), [6, 4, 2])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["SGD with momentum", "LPSGDM, p 6 → 2"]


def test_curves_without_errors_are_drawn(tmp_path):
    report.write(ResultsFolder(tmp_path), seeds(SGDM, [100.0, 100.0], [0.0, 0.0]))
    assert (tmp_path / "curves.svg").exists()


TEXT = dataclasses.replace(SGDM, dataset="stdlib", model="llama_small", batch_size=16)


def test_text_is_compared_by_its_likelihood():
    other = dataclasses.replace(TEXT, optimizer="adamw")
    # What has the higher share of right answers has the lower likelihood.
    runs = seeds(TEXT, [10.0, 20.0], [2.0, 2.5]) + seeds(other, [30.0, 40.0], [4.0, 4.5])
    [[first, second]] = tables(runs)
    assert first["test NLL"] == "2.2500 ± 0.3536"
    # The mean of the perplexities, not that of the mean.
    perplexities = np.exp([2.0, 2.5])
    assert first["test perplexity"] == f"{np.mean(perplexities):.2f} ± {np.std(perplexities, ddof=1):.2f}"
    assert not any("top-1" in name for name in first)
    assert first["minus the best (95 %)"] == "best"
    low, high = welch([4.0, 4.5], [2.0, 2.5])
    assert second["minus the best (95 %)"] == f"{low:+.4f} to {high:+.4f}"
    [text] = texts(runs)
    assert "The lowest test NLL is that of SGD with momentum. " in text
    assert "llama_small on stdlib (1,200 sequences an epoch, 597 to test) with batches of 16." in text


@pytest.mark.parametrize("diverged", [[NAN, NAN], [NAN, 0.5], [math.inf, math.inf], [math.inf, 0.5]])
@pytest.mark.parametrize("bad", ["sgdm", "lpsgdm"])
def test_diverged_runs_on_text_do_not_win(diverged, bad, tmp_path):
    lost = dataclasses.replace(TEXT, optimizer=bad)
    runs = seeds(lost, [90.0, 90.0], diverged) + seeds(
        dataclasses.replace(TEXT, optimizer="adamw"), [10.0, 20.0], [5.0, 6.0]
    )
    [text] = texts(runs)
    assert "The lowest test NLL is that of AdamW." in text
    assert "Within noise" not in text
    [rows] = tables(runs)
    assert sorted(row["minus the best (95 %)"] for row in rows) == ["best", "diverged"]
    report.write(ResultsFolder(tmp_path), runs)
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_unfinished_runs_on_text_are_told_with_their_likelihood():
    [text] = texts([*seeds(TEXT, [10.0]), record(TEXT, top1=60, nll=2.0, seed=2, epochs=2)])
    assert "SGD with momentum with seed 2 was at 3.0000 test NLL after epoch 2." in text


def test_curves_of_text_show_likelihoods():
    frame = frame_of(seeds(TEXT, [90.0, 60.0], [1.0, 2.0]))
    _, held_out, _ = curves(frame, {TEXT: "SGD"}, "a title").axes
    assert held_out.get_ylabel() == "test NLL (log perplexity)"
    np.testing.assert_allclose(held_out.lines[0].get_xydata(), [[1, 4.5], [2, 2.25], [3, 1.5]])


def tried(settings, nlls, seed=0, rates=(0.1, 0.01, 0.001)):
    settings = dataclasses.replace(settings, held_out="validation")
    return [
        record(dataclasses.replace(settings, learning_rate=rate), top1=90 - 10 * index, nll=nll, seed=seed)
        for index, (rate, nll) in enumerate(zip(rates, nlls, strict=True))
    ]


def chosen(runs):
    """Returns the cells of each row of a table of tuned settings."""
    lines = tune.table(runs).splitlines()
    return [line.strip("| ").split(" | ") for line in lines[2 : lines.index("")]]


def test_the_lowest_validation_nll_is_chosen():
    assert chosen(tried(SGDM, [0.5, 0.25, 0.4]) + tried(LPSGDM, [0.5, 0.25, 0.125])) == [
        ["SGD with momentum", "2", "3", "0.01", "0.001", "0.2500", "80.00"],
        ["LPSGDM", "6 → 2", "3", "0.001 (edge)", "0.001", "0.1250", "70.00"],
    ]
    [row] = chosen(tried(SGDM, [0.1, 0.25, 0.4]))
    assert row[3] == "0.1 (edge)"


def test_few_trials_have_all_learning_rates_before_one_twice():
    rates = [setting.learning_rate for setting in tune.trials(SGDM, None, None, 8)]
    assert set(rates) == set(tune.RATES)
    assert sorted(map(rates.count, tune.RATES)) == [1, 1, 1, 1, 2, 2]


def test_the_mean_over_the_seeds_is_what_ranks():
    [row] = chosen(tried(SGDM, [0.5, 0.1, 0.4]) + tried(SGDM, [0.5, 0.9, 0.2], seed=1))
    assert row[3:6] == ["0.001 (edge)", "0.001", "0.3000"]


@pytest.mark.parametrize("nlls", [[NAN, 0.25, 9.0], [9.0, 0.25, NAN], [math.inf, 0.25, NAN]])
def test_a_diverged_setting_is_not_chosen(nlls):
    [row] = chosen(tried(SGDM, nlls))
    assert row[3] == "0.01"


def test_settings_that_are_not_tuned_are_told_apart():
    other = dataclasses.replace(SGDM, batch_size=2 * SGDM.batch_size)
    text = tune.table(tried(SGDM, [0.5, 0.25, 0.4]) + tried(other, [0.5, 0.25, 0.4]))
    assert "| optimizer | p | batch size | trials |" in text
    assert "batches of" not in text
    assert "(edge)" not in tune.table(tried(SGDM, [0.5], rates=[0.1]))


def test_settings_of_another_p_are_chosen_separately():
    rows = chosen(
        tried(LPSGDM, [0.5, 0.25, 0.4]) + tried(dataclasses.replace(LPSGDM, p=3.0), [0.1, 0.2, 0.3])
    )
    assert [row[1] for row in rows] == ["3 → 2", "6 → 2"]


def pairs(settings, **options):
    options = {"rates": None, "decays": None, "count": None, **options}
    return [(one.learning_rate, one.weight_decay) for one in tune.trials(settings, **options)]


@pytest.mark.parametrize("optimizer", ["sgdm", "lpsgdm", "stacey_p2"])
def test_the_grid_is_that_of_the_paper(optimizer):
    assert pairs(dataclasses.replace(SGDM, optimizer=optimizer)) == [
        (rate, decay)
        for rate in (0.1, 0.05, 0.01, 0.002, 0.001, 0.0005)
        for decay in (0, 0.1, 0.01, 0.005, 0.001, 0.0005, 0.0001, 0.00001)
    ]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lion"])
def test_the_grid_of_adaptive_optimizers_is_that_of_the_paper(optimizer):
    assert pairs(dataclasses.replace(SGDM, optimizer=optimizer)) == [
        (rate, decay)
        for rate in (0.01, 0.005, 0.001, 0.0005, 0.0003, 0.0001)
        for decay in (0.1, 0.01, 0.001, 0.0005, 0.0001, 0.00001)
    ]


def test_trials_change_nothing_else():
    (trial,) = tune.trials(LPSGDM, [0.7], [0.2], None)
    assert trial == dataclasses.replace(LPSGDM, learning_rate=0.7, weight_decay=0.2)


def test_every_optimizer_has_the_same_number_of_trials():
    for count in (1, 12, 36):
        drawn = {setting: pairs(setting, count=count) for setting in (SGDM, ADAMW, LPSGDM)}
        assert {len(set(trials)) for trials in drawn.values()} == {count}
        # Those that share a grid share the draw; a draw is part of the grid, in its order.
        assert drawn[SGDM] == drawn[LPSGDM] == pairs(SGDM, count=count)
        grid = pairs(SGDM)
        assert sorted(drawn[SGDM], key=grid.index) == drawn[SGDM]


def test_a_named_grid_is_the_same_for_all():
    named = {"rates": [1.0, 0.5], "decays": [0.0]}
    assert pairs(SGDM, **named) == pairs(ADAMW, **named) == [(1.0, 0.0), (0.5, 0.0)]
