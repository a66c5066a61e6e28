"""A progress bar for downloads, shown on a terminal only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from typing_extensions import Self


class Transfer(NamedTuple):
    """The bars of several downloads.

    Attributes:
        progress: What draws them.
    """

    progress: Progress

    def of_file(self, name: str, size: int | None) -> Any:
        """Add the bar of a file; return what ``huggingface_hub`` calls for a bar, as if it were a class of tqdm."""
        task = self.progress.add_task(name, total=size)
        return lambda **given: _Bar(self.progress, task, given.get("initial", 0))


class _Bar:
    """The part of tqdm that ``huggingface_hub`` uses, drawn by rich."""

    def __init__(self, progress: Progress, task: Any, done: int) -> None:
        self._progress = progress
        self._task = task
        progress.update(task, completed=done)

    def update(self, n: float) -> None:
        self._progress.advance(self._task, n)

    def close(self) -> None:
        """Do nothing: the bar is removed with the others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


@contextmanager
def show_transfers() -> Iterator[Transfer]:
    """Show bars for downloads on standard error, if that is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Transfer(progress)
