"""Seconds by part of what a model does, on a processor or a GPU."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

MOST_EVENTS = 256  # pairs that wait to be read

Events = tuple[str, torch.cuda.Event, torch.cuda.Event]


class Stopwatch:
    """Adds up the seconds of parts, each of which `timed` names where it is computed.

    On a GPU events mark begin and end, so that nothing waits for it while it works.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._events: list[Events] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, `timed` adds to this clock."""
        before = _running.set(self)
        try:
            yield
        finally:
            _running.reset(before)

    def add(self, part: str, seconds: float) -> None:
        """Seconds of a part."""
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def add_events(self, part: str, begin: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """The time between two events of a GPU, read later."""
        self._events.append((part, begin, end))
        if len(self._events) >= MOST_EVENTS:
            self._read(self._events[: MOST_EVENTS // 2])  # passed long ago
            self._events = self._events[MOST_EVENTS // 2 :]

    def seconds(self) -> dict[str, float]:
        """Of each part; waits for the GPU."""
        self._read(self._events)
        self._events = []
        return dict(self._seconds)

    def _read(self, events: list[Events]) -> None:
        for part, begin, end in events:
            end.synchronize()
            self.add(part, begin.elapsed_time(end) / 1000)


_running: ContextVar[Stopwatch | None] = ContextVar("running", default=None)


@contextmanager
def timed(part: str, device: torch.device) -> Iterator[None]:
    """Add the seconds of what is within to the clock that is running, if one is.

    Args:
        part: its name.
        device: that computes.
    """
    clock = _running.get()
    if clock is None:
        yield
    elif device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        yield
        end.record()
        clock.add_events(part, begin, end)
    else:
        start = time.perf_counter()
        yield
        clock.add(part, time.perf_counter() - start)
