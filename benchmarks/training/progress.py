"""What the jobs show while they run."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.config.labels import names, without_seed
from benchmarks.config.schedules import Schedules
from benchmarks.config.settings import Settings
from benchmarks.data.registry import objective_of
from benchmarks.training.loop import Epoch, Look

# A figure within an epoch, and after it.
SHOWN = {"top1": "top-1 {:.1%}", "mse": "squared error {:.4f}"}
TOLD = {"nll": "NLL {:.4f}", "top1": "top-1 {:.2%}", "mse": "squared error {:.5f}"}


class Display(Progress):
    """A bar over the epochs of all runs, with the time left, and what the current run is at."""

    def __init__(self, console: Console, runs: Sequence[Settings]) -> None:
        """Makes a display for runs that are still to be done."""
        columns = (BarColumn(20), MofNCompleteColumn(), "epochs,", TimeRemainingColumn(compact=True), "left")
        super().__init__(*columns, TextColumn("{task.description}"), console=console)
        self._names = names([without_seed(run) for run in runs])
        self._bar = self.add_task("", total=sum(run.epochs for run in runs), visible=bool(runs))
        self._before = 0.0  # epochs of the runs before this one.

    def name(self, settings: Settings) -> str:
        """Returns a name that no other of the runs has that are to be done."""
        return f"{self._names[without_seed(settings)]}, seed {settings.seed}"

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(line, soft_wrap=True)

    def begin(self, settings: Settings, changing: Schedules, steps_per_epoch: int) -> None:
        """Turns to another run."""
        self._settings, self._changing, self._per_epoch = settings, changing, steps_per_epoch
        self._show(0.0, f"{self.name(settings)}: compiling")

    def look(self, look: Look) -> None:
        """Shows how far an epoch is."""
        epochs = look.step / self._per_epoch
        values = changing_at(self._changing, look.step - 1)
        metric = objective_of(self._settings.dataset).metric
        state = [f"loss {look.nll:.3f}", SHOWN[metric].format(look.metric)]
        state += [f"{name} {value:.3g}" for name, value in values.items()]
        epoch = f"epoch {math.ceil(epochs)}/{self._settings.epochs}"
        self._show(epochs, f"{self.name(self._settings)}, {epoch}: {', '.join(state)}")

    def epoch(self, number: int, epoch: Epoch) -> None:
        """Tells what an epoch ended with: in the bar, or where there is none in a line."""
        settings = self._settings
        objective = objective_of(settings.dataset)
        value = epoch.held_out_nll if objective.judged_by == "nll" else epoch.held_out_metric
        state = (
            f"{self.name(settings)}, epoch {number}/{settings.epochs}: train NLL {epoch.train_nll:.4f}, "
            f"{settings.held_out} {TOLD[objective.judged_by].format(value)}"
        )
        self._show(number, state)
        if not self.console.is_terminal:
            self.say(state)

    def finish(self, settings: Settings) -> None:
        """Counts a run as done."""
        self._before += settings.epochs
        self._show(0.0, "")

    def _show(self, epochs: float, state: str) -> None:
        self.update(self._bar, completed=self._before + epochs, description=state)


def changing_at(changing: Schedules, step: int) -> dict[str, float]:
    """Returns the learning rate, and p where it is finite, of a step."""
    p = changing.p(step) if callable(changing.p) else changing.p
    values = {"p": p, "learning_rate": changing.learning_rate(step)}
    return {name: float(x) for name, x in values.items() if x is not None and math.isfinite(x)}
