"""Frames of many free-running cameras into sets of one moment: one-to-one, bounded, never waiting for the dead.

The oldest pending frame is the pivot of the next set. Of every other camera it takes the first pending frame
within the window. Where these frames fall apart, the later ones wait for the next set: at the widest gap between two
of them, if it is clearly wider than the gap from the last of them to the pivot's camera's next frame (already here, or
due by its usual period). The set leaves when every camera that lives has decided, or after the timeout. Stamps of sets
never fall; whatever is not used is counted by its reason.

What holds whatever comes: a frame is in one set at most, a set has one frame of a camera at most, all within the
window, and sets keep the order of every camera. For cameras of one rate, let D be the spread of the frames of one
moment (phases and jitter), P the shortest step between frames of a camera, and nothing late:

* window at least D and below P - D: sets are the moments, whatever frames are lost.
* D up to 0.6 P, no frame lost: sets are the moments, whatever the window above D.
* D below 0.4 P, any window above D: a moment that lost no frame comes out whole, once four frames of each camera came.

In the first two the number of complete sets is the greatest possible. In the third, and at phases all over the period,
it is not: joining frames of neighbouring moments would complete more sets, and where the phases allow several cuts,
jitter may move the cut, at the price of a set each time.

Time jumps (a recording begins again), and single stamps are wrong. So a stray, a frame far from the time of the rig,
is held: for the next frame of its camera, which takes that time up or shows that the stamp was wrong, and for the
other cameras. The rig goes where more than half of the living cameras have gone, seen in two frames at least; backwards
that is a new segment. A camera that has gone alone is not waited for, and its frames are dropped until it is back.

Two clocks appear: `stamp_ns` is when an image was taken, `now_ns` a steady clock of arrival.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

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
        jump_ns: A stamp so far before its camera's last one, or so much further ahead of all than its usual period and
            the time since the last frame explain, is a stray.
        min_cameras: Smaller sets are dropped (and counted).
        capacity: Pending frames per camera; beyond it the oldest set leaves at once, and the oldest stray is dropped.
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
        segment: Rises when time jumps back.
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
        dropped_stray: Far from the time of the rig: a wrong stamp, or a camera whose clock is elsewhere.
        dropped_old_time: The same after time jumped back, of a camera that has not followed yet.
        dropped_reset: Pending when time jumped back.
        dropped_small_set: In sets below `min_cameras`.
        time_jumps: How often time jumped back.
    """

    frames_in: int = 0
    frames_used: int = 0
    sets: int = 0
    partial_sets: int = 0
    timeouts: int = 0
    dropped_late: int = 0
    dropped_disorder: int = 0
    dropped_stray: int = 0
    dropped_old_time: int = 0
    dropped_reset: int = 0
    dropped_small_set: int = 0
    time_jumps: int = 0

    @property
    def dropped(self) -> int:
        """All reasons together."""
        return (self.dropped_late + self.dropped_disorder + self.dropped_stray + self.dropped_old_time
                + self.dropped_reset + self.dropped_small_set)


_Pending = tuple[int, int, T]
"""Stamp, arrival and item."""


@dataclasses.dataclass(eq=False)
class _Camera(Generic[T]):
    """State of one camera.

    Args:
        offset_ns: Added to its stamps.
        queue: Frames that wait for a set, oldest first.
        last_stamp: Newest in the time of the rig; None while it has none there.
        last_arrival: Of any of its frames.
        periods: Steps between its stamps.
        segment: The last one it took part in.
        late: Frames that came after their moment had left.
        strays: Held frames, oldest first; older ones of the same run may have been dropped.
        stray_stamp: Newest of the run of strays; None in the time of the rig.
        stray_count: How long that run is.
    """

    offset_ns: int
    queue: deque[_Pending[T]] = dataclasses.field(default_factory=deque)
    last_stamp: int | None = None
    last_arrival: int | None = None
    periods: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=_PERIODS))
    segment: int = 0
    late: int = 0
    strays: deque[_Pending[T]] = dataclasses.field(default_factory=deque)
    stray_stamp: int | None = None
    stray_count: int = 0

    def period(self) -> int | None:
        return sorted(self.periods)[len(self.periods) // 2] if len(self.periods) >= 3 else None


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
        self._first_arrival: int | None = None
        self._accepted_at = 0  # newest arrival of a frame in the time of the rig
        self._left_at: int | None = None  # pivot of the last set
        self._last_set_stamp: int | None = None

    @property
    def segment(self) -> int:
        """Rises when time jumps back."""
        return self._segment

    @property
    def pending(self) -> int:
        """Frames that wait for a set, and held strays."""
        return sum(len(camera.queue) + len(camera.strays) for camera in self._cameras.values())

    def late_frames(self, camera: str) -> int:
        """Frames of a camera that came after their moment had left: raise the timeout if this grows."""
        return self._cameras[camera].late

    def away_s(self, camera: str) -> float:
        """How far the stamps of a camera that is left out are ahead of the rig's; 0 of one that takes part."""
        newest, stray = self._newest(), self._cameras[camera].stray_stamp
        return 0.0 if newest is None or stray is None else (stray - newest) * 1e-9

    def is_alive(self, camera: str, now_ns: int) -> bool:
        """Whether the camera has sent anything lately (or may still be starting)."""
        last = self._cameras[camera].last_arrival
        if last is None:  # cameras do not all start at once
            last = self._first_arrival
        return last is not None and now_ns - last <= self.config.dead_after_ns

    def set_offset(self, camera: str, offset_ns: int) -> None:
        """Change what is added to a camera's stamps, also to those it sent already: no jump, whatever the change.

        A change of more than `jump_ns` that brings it far from the other cameras makes it a stray until it is near.
        """
        state = self._cameras[camera]
        by_ns = int(offset_ns) - state.offset_ns
        state.offset_ns = int(offset_ns)
        state.queue = deque((stamp + by_ns, arrival, item) for stamp, arrival, item in state.queue)
        state.strays = deque((stamp + by_ns, arrival, item) for stamp, arrival, item in state.strays)
        state.last_stamp = None if state.last_stamp is None else state.last_stamp + by_ns
        state.stray_stamp = None if state.stray_stamp is None else state.stray_stamp + by_ns
        while state.queue and self._left_at is not None and state.queue[0][0] < self._left_at:
            state.queue.popleft()
            self._count_late(state)
        if abs(by_ns) > self.config.jump_ns and state.last_stamp is not None:
            last, state.last_stamp = state.last_stamp, None
            if self._is_stray(state, last, self._accepted_at):
                state.strays.extend(state.queue)
                state.queue.clear()
                self._end_strays(state)
            else:
                state.last_stamp = last

    def push(self, camera: str, stamp_ns: int, item: T, now_ns: int) -> list[SyncedSet[T]]:
        """Take one frame; returns the sets that leave because of it.

        Raises:
            KeyError: Unknown camera.
        """
        state = self._cameras[camera]
        self.counters.frames_in += 1
        state.last_arrival = now_ns
        self._first_arrival = now_ns if self._first_arrival is None else self._first_arrival
        frame = int(stamp_ns) + state.offset_ns, now_ns, item
        if self._is_stray(state, frame[0], now_ns):
            self._hold(state, frame)
            return self._follow(state, now_ns) + self._collect(now_ns)
        self._end_strays(state)
        self._accept(state, frame)
        return self._collect(now_ns)

    def poll(self, now_ns: int) -> list[SyncedSet[T]]:
        """Sets whose time is up; call it at least as often as the timeout."""
        return self._collect(now_ns)

    def flush(self, now_ns: int) -> list[SyncedSet[T]]:
        """Everything that is pending, without waiting (end of a recording); held strays are dropped."""
        for camera in self._cameras.values():
            self._drop_strays(camera, len(camera.strays))
        return self._collect(now_ns, everything=True)

    def _accept(self, state: _Camera[T], frame: _Pending[T]) -> None:
        """A frame in the time of the rig."""
        stamp, now_ns, _ = frame
        if state.segment < self._segment:
            state.periods.clear()
            state.segment = self._segment
        if state.last_stamp is not None:
            if stamp <= state.last_stamp:
                self.counters.dropped_disorder += 1
                return
            state.periods.append(stamp - state.last_stamp)
        state.last_stamp = stamp
        if self._left_at is not None and stamp < self._left_at:
            self._count_late(state)
            return
        self._accepted_at = max(self._accepted_at, now_ns)
        state.queue.append(frame)

    def _count_late(self, state: _Camera[T]) -> None:
        self.counters.dropped_late += 1
        state.late += 1

    # --- strays ------------------------------------------------------------------------------------------------------

    def _newest(self) -> int | None:
        """Newest stamp in the time of the rig."""
        return max((c.last_stamp for c in self._cameras.values() if c.last_stamp is not None), default=None)

    def _is_stray(self, state: _Camera[T], stamp: int, now_ns: int) -> bool:
        newest, config = self._newest(), self.config
        if newest is None:
            return False
        silence = max(now_ns - self._accepted_at, 0)  # time may have gone on by so much
        if stamp > newest + config.jump_ns + (state.period() or 0) + silence:
            return True
        if state.last_stamp is not None and stamp < state.last_stamp - config.jump_ns:
            return True
        if state.last_stamp is not None and silence <= config.dead_after_ns:
            return False  # a camera that falls behind a rig that lives is late
        pending = (camera.queue[0][0] for camera in self._cameras.values() if camera.queue)
        oldest = min(pending, default=stamp) if self._left_at is None else self._left_at
        return stamp < oldest - config.dead_after_ns - silence

    def _hold(self, state: _Camera[T], frame: _Pending[T]) -> None:
        newest = self._newest()
        assert newest is not None
        if state.stray_stamp is None or not 0 < frame[0] - state.stray_stamp < abs(frame[0] - newest):
            self._end_strays(state)  # another wrong stamp, not the same time going on
        state.stray_stamp = frame[0]
        state.stray_count += 1
        state.strays.append(frame)
        self._drop_strays(state, min(len(state.queue) + len(state.strays) - self.config.capacity, len(state.strays)))

    def _end_strays(self, state: _Camera[T]) -> None:
        self._drop_strays(state, len(state.strays))
        state.stray_stamp, state.stray_count = None, 0

    def _drop_strays(self, state: _Camera[T], number: int) -> None:
        for _ in range(number):
            state.strays.popleft()
            if state.segment < self._segment:
                self.counters.dropped_old_time += 1
            else:
                self.counters.dropped_stray += 1

    def _follow(self, state: _Camera[T], now_ns: int) -> list[SyncedSet[T]]:
        """Go to the time of this camera's strays, with all that are there, if most living cameras are.

        Two cameras are at one time if their stamps are nearer to each other than to the time of the rig.
        """
        newest, stamp = self._newest(), state.stray_stamp
        assert newest is not None and stamp is not None
        living = [c for name, c in self._cameras.items() if c.last_arrival is not None and self.is_alive(name, now_ns)]
        there = [c for c in living if c.stray_stamp is not None and (c is state or abs(c.stray_stamp - stamp) < min(
            abs(c.stray_stamp - newest), abs(stamp - newest)))]
        if 2 * len(there) <= len(living) or sum(c.stray_count for c in there) < 2:
            return []
        sets: list[SyncedSet[T]] = []
        back = stamp < newest
        if back:
            self.counters.time_jumps += 1
            self._segment += 1
            self._last_set_stamp = None
            for camera in self._cameras.values():
                self.counters.dropped_reset += len(camera.queue)
                camera.queue.clear()
        else:
            sets = self._collect(now_ns, everything=True)
        self._left_at = None
        for camera in self._cameras.values():
            if back or camera not in there:
                camera.last_stamp = None
            if camera in there:
                strays, camera.strays = camera.strays, deque()
                for frame in strays:
                    self._accept(camera, frame)
                camera.last_stamp = camera.stray_stamp
            self._end_strays(camera)
        return sets

    def _collect(self, now_ns: int, everything: bool = False) -> list[SyncedSet[T]]:
        for camera in self._cameras.values():
            while camera.strays and now_ns - camera.strays[0][1] > self.config.dead_after_ns:
                self._drop_strays(camera, 1)
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
        period = own.period()
        if following is None and period is not None:
            following = pivot + period
        near, decided = [(pivot, name)], True
        for other, camera in self._cameras.items():
            if other == name:
                continue
            if camera.queue:
                if camera.queue[0][0] - pivot <= self.config.window_ns:
                    near.append((camera.queue[0][0], other))
                continue
            beyond = camera.last_stamp is not None and camera.last_stamp > pivot + self.config.window_ns
            if self.is_alive(other, now_ns) and not beyond and camera.stray_count < 2:
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
