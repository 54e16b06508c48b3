"""The progress bar that the jobs share."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def epochs_bar(console: Console) -> Progress:
    """Returns a bar that counts epochs and tells the time left; its description says what runs."""
    columns = (BarColumn(), MofNCompleteColumn(), "epochs", TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=console)
