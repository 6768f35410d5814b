"""Seconds by part, on a processor and on a pretended GPU's events."""

import pytest
import torch

from detection.runtime import stopwatch
from detection.runtime.stopwatch import Stopwatch, timed

CPU = torch.device("cpu")


def test_parts_add_up_while_the_clock_runs(monkeypatch):
    ticks = iter([0.0, 1.0, 10.0, 12.5])
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: next(ticks))
    clock = Stopwatch()
    with timed("conv", CPU):  # no clock runs: nothing is asked of the time
        pass
    with clock.running():
        for _ in range(2):
            with timed("conv", CPU):
                pass
    assert clock.seconds() == {"conv": 3.5}


def test_a_gpu_is_waited_for_at_the_end_only(monkeypatch):
    """Events of milliseconds; a long test reads those that are long past and keeps few."""
    waits = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def synchronize(self):
            waits.append(self)

        def elapsed_time(self, end):
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = Stopwatch()
    with clock.running():
        for _ in range(10):
            with timed("fc", torch.device("cuda")):
                pass
        assert not waits
        assert clock.seconds() == {"fc": pytest.approx(0.02)}
        for _ in range(stopwatch.MOST_EVENTS):
            with timed("fc", torch.device("cuda")):
                pass
    assert len(clock._events) == stopwatch.MOST_EVENTS // 2
    assert clock.seconds() == {"fc": pytest.approx(0.02 + stopwatch.MOST_EVENTS * 0.002)}
