"""The main job: several optimizers on real images, ending in a table and a picture."""

import itertools
from pathlib import Path

from rich.console import Console

from benchmarks import report
from benchmarks.checkpoints import Checkpoints
from benchmarks.datasets import DATASETS
from benchmarks.interruption import interruption
from benchmarks.optimizers import OPTIMIZERS, build, describe
from benchmarks.progress import epochs_bar
from benchmarks.recording import ResultsFolder
from benchmarks.training import steps_per_epoch, train

MODEL, DATASET, BATCH_SIZE, EPOCHS = "resnet8", "digits", 50, 20


def compare(optimizers: list[str], seeds: int, epochs: int, output: Path, console: Console) -> None:
    """Trains every optimizer with every seed; writes results, table and picture to `output`."""
    dataset = DATASETS[DATASET]()
    steps = steps_per_epoch(dataset, BATCH_SIZE)
    shared = {"model": MODEL, "dataset": DATASET, "batch_size": BATCH_SIZE, "epochs": epochs}
    described = {name: describe(OPTIMIZERS[name], epochs, steps) for name in optimizers}
    folder = ResultsFolder(output, {**shared, "seeds": seeds, "optimizers": described})
    console.print(f"Results go to {output}", soft_wrap=True)
    # Built once each, so that the seeds share a compiled step.
    built = {name: build(OPTIMIZERS[name], epochs * steps) for name in optimizers}
    try:
        with epochs_bar(console) as progress, interruption(progress.console) as interrupted:
            runs = itertools.product(optimizers, range(seeds))
            missing = [run for run in runs if not folder.has(optimizer=run[0], seed=run[1])]
            task = progress.add_task("", total=len(missing) * epochs)
            for name, seed in missing:
                checkpoints = Checkpoints(
                    output / "checkpoints" / f"{name}-{seed}",
                    {**shared, "seed": seed, "optimizer": described[name]},
                    interrupted=interrupted,
                    say=lambda line: progress.console.print(line, soft_wrap=True),
                )
                measured: list[dict[str, float]] = []
                run = {"optimizer": name, "seed": seed, "epochs": measured}
                for epoch in train(
                    MODEL,
                    dataset,
                    dataset.test,
                    built[name],
                    epochs=epochs,
                    batch_size=BATCH_SIZE,
                    seed=seed,
                    checkpoints=checkpoints,
                ):
                    measured.append(epoch._asdict())
                    folder.results["unfinished"] = [run]
                    state = f"{OPTIMIZERS[name].label}, seed {seed}, test top-1 {epoch.held_out_top1:.1%}"
                    progress.update(task, advance=1, description=state)
                folder.results["unfinished"] = []
                folder.add_run(run)
                checkpoints.remove()
    except KeyboardInterrupt:
        _report(folder, console)
        raise
    _report(folder, console)


def _report(folder: ResultsFolder, console: Console) -> None:
    report.show(folder.results, console)
    folder.write()
    files = ", ".join([*report.write(folder), folder.file.name])
    console.print(f"Results are in {folder.path}: {files}", soft_wrap=True)
