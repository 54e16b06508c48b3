"""Chooses learning rate and weight decay from one grid for every optimizer.

The test images take no part: the settings are ranked by the negative log likelihood of
the validation images after the last epoch, averaged over the seeds. It decides better
than the share of right answers, of which 300 images leave many ties.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.compare import BATCH_SIZE, DATASET, MODEL
from benchmarks.datasets import DATASETS
from benchmarks.interruption import interruption
from benchmarks.optimizers import OPTIMIZERS, build
from benchmarks.progress import epochs_bar
from benchmarks.recording import ResultsFolder
from benchmarks.training import Epoch, steps_per_epoch, train

LEARNING_RATES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
WEIGHT_DECAYS = (0.0, 0.01)


def tune(optimizers: list[str], seeds: int, epochs: int, output: Path, console: Console) -> None:
    """Trains every optimizer with every setting of the grid; writes results and choice to `output`."""
    dataset = DATASETS[DATASET]()
    total_steps = epochs * steps_per_epoch(dataset, BATCH_SIZE)
    grid = list(itertools.product(optimizers, LEARNING_RATES, WEIGHT_DECAYS))
    settings = {
        "model": MODEL,
        "dataset": DATASET,
        "batch_size": BATCH_SIZE,
        "epochs": epochs,
        "seeds": seeds,
    }
    folder = ResultsFolder(output, settings)
    console.print(f"Results go to {output}", soft_wrap=True)
    keys = ("optimizer", "learning_rate", "weight_decay")
    grid = [setting for setting in grid if not folder.has(**dict(zip(keys, setting, strict=True)))]
    try:
        with epochs_bar(console) as progress, interruption(progress.console) as interrupted:
            task = progress.add_task("", total=len(grid) * seeds * epochs)
            while grid:
                name, learning_rate, weight_decay = grid[0]
                entry = OPTIMIZERS[name]._replace(learning_rate=learning_rate, weight_decay=weight_decay)
                optimizer = build(entry, total_steps)
                last: dict[int, Epoch] = {}
                for seed in range(seeds):
                    run = train(
                        MODEL,
                        dataset,
                        dataset.validation,
                        optimizer,
                        epochs=epochs,
                        batch_size=BATCH_SIZE,
                        seed=seed,
                    )
                    for epoch in run:
                        state = f"{entry.label}, learning rate {learning_rate:g}, decay {weight_decay:g}"
                        progress.update(task, advance=1, description=state)
                        last[seed] = epoch
                        if interrupted():
                            raise KeyboardInterrupt
                folder.add_run(
                    {
                        "optimizer": name,
                        "learning_rate": learning_rate,
                        "weight_decay": weight_decay,
                        "validation_nll": [epoch.held_out_nll for epoch in last.values()],
                        "validation_top1": [epoch.held_out_top1 for epoch in last.values()],
                    }
                )
                grid.pop(0)
    except KeyboardInterrupt:
        _report(folder, len(grid), console)
        raise
    _report(folder, 0, console)


def _report(folder: ResultsFolder, untried: int, console: Console) -> None:
    text = table(folder.results) if folder.results["runs"] else "No setting has been tried.\n"
    if untried:
        text += f"\nInterrupted: settings still to try: {untried}.\n"
    console.print(Markdown(text))
    folder.write_text("table.md", text)
    console.print(f"Results are in {folder.path}: table.md, {folder.file.name}", soft_wrap=True)


def table(results: dict[str, Any]) -> str:
    """Returns the best setting of each optimizer as a Markdown table."""
    lines = [
        "| optimizer | learning rate | weight decay | validation NLL | validation top-1, % |",
        "|---|---|---|---|---|",
    ]
    for name, best in choose(results).items():
        lines.append(
            f"| {OPTIMIZERS[name].label} | {best['learning_rate']:g} | {best['weight_decay']:g} "
            f"| {np.mean(best['validation_nll']):.4f} | {100 * np.mean(best['validation_top1']):.2f} |"
        )
    return "\n".join([*lines, "", _grid(results), ""])


def _grid(results: dict[str, Any]) -> str:
    rates, decays = (
        ", ".join(f"{value:g}" for value in sorted({run[key] for run in results["runs"]}))
        for key in ("learning_rate", "weight_decay")
    )
    return (
        f"The best of learning rates {rates} with weight decays {decays}, by the validation NLL after "
        f"{results['settings']['epochs']} epochs, mean over {results['settings']['seeds']} seeds."
    )


def choose(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the run with the lowest validation NLL of each optimizer, by name."""
    chosen: dict[str, dict[str, Any]] = {}
    for run in results["runs"]:
        best = chosen.get(run["optimizer"])
        if best is None or _score(run) < _score(best):
            chosen[run["optimizer"]] = run
    return chosen


def _score(run: dict[str, Any]) -> float:
    score = float(np.mean(run["validation_nll"]))
    return math.inf if math.isnan(score) else score  # diverged
