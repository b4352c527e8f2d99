"""A progress bar of finished instances, for long solves."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from fixedpoint.solution import Progress, Status


class ProgressBar:
    """A callback that draws how many instances are done, while it is entered:

        with fp.ProgressBar("tracks") as bar:
            fp.solve(map, problem, chunk=4096, callback=bar)

    Args:
        label: what stands before the bar.
        **options: of `rich.progress.Progress`, such as `console` or `disable`.
    """

    def __init__(self, label: str = "instances", **options: Any) -> None:
        self.label, self.options = label, options
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), **self.options)
        self._bar.start()
        self._task = self._bar.add_task(self.label, total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Take note of the instances that are done."""
        if self._bar is None:
            raise RuntimeError("ProgressBar: enter it first, `with fp.ProgressBar() as bar: ...`")
        done = int((progress.status != Status.RUNNING).sum())
        self._bar.update(self._task, total=progress.status.numel(), completed=done)
