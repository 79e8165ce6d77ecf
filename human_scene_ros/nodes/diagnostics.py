"""The node's own health: counters that always add up, rates, latencies, reports. No ROS import.

`frames_in == frames_processed + frames_dropped + frames_rejected + frames_pending` holds at every moment,
because all of them change under one lock and pending is what is left.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import threading
import time

import numpy as np


class Level(enum.IntEnum):
    """Values equal those of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclasses.dataclass(frozen=True)
class Report:
    """One line of /diagnostics.

    Args:
        name: "<node>: <part>".
        level: How bad.
        message: One sentence; with both values where something does not fit.
        values: Figures behind it.
        hardware_id: Camera or device.
    """

    name: str
    level: Level
    message: str
    values: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware_id: str = ""


@dataclasses.dataclass(frozen=True)
class Counts:
    """A consistent snapshot of what happened to every frame that arrived since the node started."""

    frames_in: int
    processed: int
    dropped: int
    rejected: int

    @property
    def pending(self) -> int:
        """Frames that wait or are being processed."""
        return self.frames_in - self.processed - self.dropped - self.rejected


class FrameCounter:
    """Counts each frame once on arrival and once at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in = self._processed = self._dropped = self._rejected = 0

    def arrived(self) -> None:
        """A frame came; it is pending now."""
        with self._lock:
            self._in += 1

    def processed(self) -> None:
        """A pending frame went through."""
        with self._lock:
            self._processed += 1

    def dropped(self, frames: int = 1) -> None:
        """Pending frames were replaced by newer ones, too old, or came while paused."""
        with self._lock:
            self._dropped += frames

    def rejected(self) -> None:
        """A pending frame could not be processed."""
        with self._lock:
            self._rejected += 1

    def counts(self) -> Counts:
        """All counters at one moment."""
        with self._lock:
            return Counts(self._in, self._processed, self._dropped, self._rejected)


class Rate:
    """Events per second over a sliding window of steady time.

    Args:
        window_s: Length of the window.
    """

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: collections.deque[float] = collections.deque(maxlen=10000)
        self._lock = threading.Lock()

    def tick(self, now_s: float | None = None) -> None:
        """Count one event."""
        with self._lock:
            self._times.append(time.monotonic() if now_s is None else now_s)

    def per_second(self, now_s: float | None = None) -> float:
        """0 when fewer than two events lie in the window."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            while self._times and self._times[0] < now_s - self._window_s:
                self._times.popleft()
            if len(self._times) < 2 or self._times[-1] <= self._times[0]:
                return 0.0
            return (len(self._times) - 1) / (self._times[-1] - self._times[0])


class Durations:
    """The last durations of something, for mean and percentiles; seconds."""

    def __init__(self, keep: int = 200) -> None:
        self._values: collections.deque[float] = collections.deque(maxlen=keep)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Remember one duration."""
        with self._lock:
            self._values.append(seconds)

    def mean(self) -> float:
        """Mean, 0 when empty."""
        with self._lock:
            return float(np.mean(self._values)) if self._values else 0.0

    def percentile(self, percent: float) -> float:
        """Percentile in [0, 100], 0 when empty."""
        with self._lock:
            return float(np.percentile(self._values, percent)) if self._values else 0.0


class Throttle:
    """Lets something through at most `rate` times per second of the data's own time.

    Going by stamps, not by the wall clock, gives a replay at any speed the same messages.
    """

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def due(self, stamp_ns: int, rate: float) -> bool:
        """True if it is time again; a rate of 0 is never due; a stamp that goes back is due."""
        if rate <= 0.0:
            return False
        # Half a millisecond of slack, or a 30 Hz camera at rate 30 would lose frames to rounding.
        if self._last_ns is not None and 0 <= stamp_ns - self._last_ns < 1e9 / rate - 5e5:
            return False
        self._last_ns = stamp_ns
        return True


class Notes:
    """The last problem of each kind and how often it came, so that a report can show it for a while.

    Args:
        keep_s: A problem is shown for this long after it last came.
    """

    def __init__(self, keep_s: float = 10.0) -> None:
        self._keep_s = keep_s
        self._notes: dict[str, tuple[float, Level, str, int]] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, level: Level, text: str, now_s: float | None = None) -> bool:
        """Remember; True if this text is new for its kind (then it is worth a log line)."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            known = self._notes.get(kind)
            new = known is None or known[2] != text or now_s - known[0] > self._keep_s
            self._notes[kind] = (now_s, level, text, (known[3] if known else 0) + 1)
            return new

    def remove(self, kind: str) -> None:
        """The problem is over."""
        with self._lock:
            self._notes.pop(kind, None)

    def worst(self, now_s: float | None = None) -> tuple[Level, list[str]]:
        """Level and texts of what came within the last `keep_s`."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            recent = [n for n in self._notes.values() if now_s - n[0] <= self._keep_s]
        level = max((n[1] for n in recent), default=Level.OK)
        return level, [f"{text} ({count} times)" if count > 1 else text
                       for _, _, text, count in sorted(recent, key=lambda n: -n[1])]
