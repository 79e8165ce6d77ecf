"""Frames of many free-running cameras into sets of one moment: one-to-one, bounded, never waiting for the dead.

The oldest pending frame is the pivot of the next set. Of every other camera it takes the first pending frame
within the window. Where these frames fall apart, the later ones wait for the next set: at the widest gap between two
of them, if it is clearly wider than the gap from the last of them to the pivot's camera's next frame (already here, or
due by its usual period). The set leaves when every camera that lives has decided, or after the timeout. Stamps of sets
never fall. Time that jumps back starts a new segment; whatever is not used is counted by its reason.

Two clocks appear: `stamp_ns` is when an image was taken, `now_ns` a steady clock of arrival.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from human_scene_ros.errors import ConfigError

T = TypeVar("T")

_PERIODS = 15
_CLEARLY = 1.5  # phases spread evenly over the period must not be cut here now and there then


@dataclasses.dataclass(frozen=True)
class SyncConfig:
    """Settings.

    Args:
        window_ns: Frames of one set are at most this far from its oldest frame.
        timeout_ns: A set leaves incomplete so long after its oldest frame arrived.
        dead_after_ns: A camera silent for so long is not waited for.
        jump_ns: A stamp so far before its camera's last one is a jump of time, not disorder.
        min_cameras: Smaller sets are dropped (and counted).
        capacity: Pending frames per camera; beyond it the oldest set leaves at once.
    """

    window_ns: int = 34_000_000
    timeout_ns: int = 100_000_000
    dead_after_ns: int = 1_000_000_000
    jump_ns: int = 500_000_000
    min_cameras: int = 1
    capacity: int = 16

    def __post_init__(self) -> None:
        for name in ("window_ns", "timeout_ns", "dead_after_ns", "jump_ns", "min_cameras", "capacity"):
            if getattr(self, name) < 1:
                raise ConfigError(f"sync {name} = {getattr(self, name)}: expected at least 1")


@dataclasses.dataclass(frozen=True)
class SyncedFrame(Generic[T]):
    """One member of a set.

    Args:
        stamp_ns: Acquisition time with the camera's offset applied.
        item: What was pushed.
    """

    stamp_ns: int
    item: T


@dataclasses.dataclass(frozen=True)
class SyncedSet(Generic[T]):
    """Frames of one moment.

    Args:
        stamp_ns: Median of the members' stamps; never falls within a segment.
        members: Camera to frame, at most one each.
        complete: Every configured camera is in.
        spread_ns: Latest minus earliest stamp.
        segment: Rises with every jump of time.
    """

    stamp_ns: int
    members: Mapping[str, SyncedFrame[T]]
    complete: bool
    spread_ns: int
    segment: int


@dataclasses.dataclass
class SyncCounters:
    """Every frame that came in is pending, in a set, or counted here.

    Args:
        frames_in: Frames pushed.
        frames_used: Frames that left in sets.
        sets: Sets that left.
        partial_sets: Of these, without all configured cameras.
        timeouts: Of these, those that left because their time was up.
        dropped_late: Their moment had already left.
        dropped_disorder: Not later than the camera's last frame.
        dropped_old_time: From before a jump that another camera has made already.
        dropped_reset: Pending when time jumped.
        dropped_small_set: In sets below `min_cameras`.
        time_jumps: Resets.
    """

    frames_in: int = 0
    frames_used: int = 0
    sets: int = 0
    partial_sets: int = 0
    timeouts: int = 0
    dropped_late: int = 0
    dropped_disorder: int = 0
    dropped_old_time: int = 0
    dropped_reset: int = 0
    dropped_small_set: int = 0
    time_jumps: int = 0

    @property
    def dropped(self) -> int:
        """All reasons together."""
        return (self.dropped_late + self.dropped_disorder + self.dropped_old_time + self.dropped_reset
                + self.dropped_small_set)


@dataclasses.dataclass
class _Camera(Generic[T]):
    offset_ns: int
    queue: deque[tuple[int, int, T]] = dataclasses.field(default_factory=deque)  # stamp, arrival, item
    last_stamp: int | None = None
    last_arrival: int | None = None
    periods: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=_PERIODS))
    segment: int = 0
    late: int = 0

    def period(self) -> int | None:
        return int(np.median(self.periods)) if len(self.periods) >= 3 else None


class Synchroniser(Generic[T]):
    """Groups frames by stamp; not thread-safe, feed it from one place.

    Args:
        cameras: Names.
        config: Settings.
        offsets_ns: Added to a camera's stamps; cameras not named have 0.

    Raises:
        ConfigError: No camera, a name twice, or an offset for an unknown camera.
    """

    def __init__(self, cameras: Sequence[str], config: SyncConfig | None = None,
                 offsets_ns: Mapping[str, int] | None = None) -> None:
        if not cameras or len(set(cameras)) != len(cameras):
            raise ConfigError(f"sync cameras = {list(cameras)}: expected at least one name, each once")
        unknown = set(offsets_ns or {}) - set(cameras)
        if unknown:
            raise ConfigError(f"sync offsets for unknown camera(s) {sorted(unknown)}; known: {list(cameras)}")
        self.config = config or SyncConfig()
        self.counters = SyncCounters()
        self._cameras: dict[str, _Camera[T]] = {
            name: _Camera(int((offsets_ns or {}).get(name, 0))) for name in cameras}
        self._segment = 0
        self._jumped_to: int | None = None
        self._first_arrival: int | None = None
        self._left_at: int | None = None  # pivot of the last set
        self._last_set_stamp: int | None = None

    @property
    def segment(self) -> int:
        """Rises with every jump of time."""
        return self._segment

    @property
    def pending(self) -> int:
        """Frames that wait for a set."""
        return sum(len(camera.queue) for camera in self._cameras.values())

    def late_frames(self, camera: str) -> int:
        """Frames of a camera that came after their moment had left: raise the timeout if this grows."""
        return self._cameras[camera].late

    def is_alive(self, camera: str, now_ns: int) -> bool:
        """Whether the camera has sent anything lately (or may still be starting)."""
        last = self._cameras[camera].last_arrival
        if last is None:  # cameras do not all start at once
            last = self._first_arrival
        return last is not None and now_ns - last <= self.config.dead_after_ns

    def set_offset(self, camera: str, offset_ns: int) -> None:
        """Change what is added to a camera's stamps, from its next frame on."""
        self._cameras[camera].offset_ns = int(offset_ns)

    def push(self, camera: str, stamp_ns: int, item: T, now_ns: int) -> list[SyncedSet[T]]:
        """Take one frame; returns the sets that leave because of it.

        Raises:
            KeyError: Unknown camera.
        """
        state = self._cameras[camera]
        self.counters.frames_in += 1
        state.last_arrival = now_ns
        self._first_arrival = now_ns if self._first_arrival is None else self._first_arrival
        stamp = int(stamp_ns) + state.offset_ns
        before = state.last_stamp
        if before is not None and stamp < before - self.config.jump_ns:
            if state.segment == self._segment:
                self._jump(stamp)
            state.periods.clear()
            state.segment = self._segment
        elif state.segment < self._segment:
            assert self._jumped_to is not None
            if before is not None and abs(stamp - self._jumped_to) > abs(stamp - before):
                self.counters.dropped_old_time += 1  # it continues the old time, this camera jumps later
                state.last_stamp = stamp
                return []
            state.periods.clear()
            state.segment = self._segment
        elif before is not None:
            if stamp <= before:
                self.counters.dropped_disorder += 1
                return []
            state.periods.append(stamp - before)
        state.last_stamp = stamp
        if self._left_at is not None and stamp < self._left_at:
            self.counters.dropped_late += 1
            state.late += 1
            return self._collect(now_ns)
        state.queue.append((stamp, now_ns, item))
        return self._collect(now_ns)

    def poll(self, now_ns: int) -> list[SyncedSet[T]]:
        """Sets whose time is up; call it at least as often as the timeout."""
        return self._collect(now_ns)

    def flush(self, now_ns: int) -> list[SyncedSet[T]]:
        """Everything that is pending, without waiting (end of a recording)."""
        return self._collect(now_ns, everything=True)

    def _jump(self, stamp: int) -> None:
        self.counters.time_jumps += 1
        self._segment += 1
        self._jumped_to = stamp
        self._left_at = self._last_set_stamp = None
        for camera in self._cameras.values():
            self.counters.dropped_reset += len(camera.queue)
            camera.queue.clear()

    def _collect(self, now_ns: int, everything: bool = False) -> list[SyncedSet[T]]:
        sets: list[SyncedSet[T]] = []
        while True:
            waiting = [(camera.queue[0][0], name) for name, camera in self._cameras.items() if camera.queue]
            if not waiting:
                return sets
            pivot, name = min(waiting)
            members, decided = self._members(pivot, name, now_ns)
            arrived = self._cameras[name].queue[0][1]
            full = any(len(camera.queue) > self.config.capacity for camera in self._cameras.values())
            if not (decided or everything or full or now_ns - arrived >= self.config.timeout_ns):
                return sets
            made = self._emit(pivot, members)
            if made is not None:
                self.counters.timeouts += not (decided or everything or full)
                sets.append(made)

    def _members(self, pivot: int, name: str, now_ns: int) -> tuple[list[str], bool]:
        """Cameras whose first pending frame joins the pivot, and whether nobody needs to be waited for."""
        own = self._cameras[name]
        following = own.queue[1][0] if len(own.queue) > 1 else None
        if following is None and own.period() is not None:
            following = pivot + int(own.period() or 0)
        near, decided = [(pivot, name)], True
        for other, camera in self._cameras.items():
            if other == name:
                continue
            if camera.queue:
                if camera.queue[0][0] - pivot <= self.config.window_ns:
                    near.append((camera.queue[0][0], other))
                continue
            beyond = camera.last_stamp is not None and camera.segment == self._segment and (
                camera.last_stamp > pivot + self.config.window_ns)
            if self.is_alive(other, now_ns) and not beyond:
                decided = False
        near.sort()
        if following is not None and len(near) > 1:
            gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(near)]
            widest = max(range(len(gaps)), key=gaps.__getitem__)
            if gaps[widest] > _CLEARLY * max(following - near[-1][0], 0):
                near = near[:widest + 1]
        return [member for _, member in near], decided

    def _emit(self, pivot: int, names: list[str]) -> SyncedSet[T] | None:
        frames = {}
        for name in names:
            stamp, _, item = self._cameras[name].queue.popleft()
            frames[name] = SyncedFrame(stamp, item)
        self._left_at = pivot
        if len(frames) < self.config.min_cameras:
            self.counters.dropped_small_set += len(frames)
            return None
        stamps = sorted(frame.stamp_ns for frame in frames.values())
        stamp = stamps[len(stamps) // 2] if len(stamps) % 2 else (stamps[len(stamps) // 2 - 1]
                                                                  + stamps[len(stamps) // 2]) // 2
        if self._last_set_stamp is not None:
            stamp = max(stamp, self._last_set_stamp)
        self._last_set_stamp = stamp
        complete = len(frames) == len(self._cameras)
        self.counters.sets += 1
        self.counters.partial_sets += not complete
        self.counters.frames_used += len(frames)
        return SyncedSet(stamp, frames, complete, stamps[-1] - stamps[0], self._segment)
