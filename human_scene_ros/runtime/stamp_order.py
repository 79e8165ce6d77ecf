"""The frames of several cameras, handed to one worker in the order of their stamps.

The oldest frame that waits is the next one only if no camera can still bring an older one. So each camera without a
waiting frame is waited for, within bounds; whatever a camera does, no frame waits for ever and every drop is counted.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from human_scene_ros.errors import ConfigError


class Stamped(Protocol):
    """What `StampOrder` must know of an item."""

    @property
    def camera(self) -> str: ...

    @property
    def stamp_ns(self) -> int: ...


T = TypeVar("T", bound=Stamped)


@dataclasses.dataclass
class _Lane(Generic[T]):
    """What waits of one camera, and what is known of its stamps.

    Args:
        waiting: (pass, item, when a frame of this camera began to wait, steady seconds); oldest first.
        number: Pass of its newest frame: how often its stamps went back.
        newest_ns: Its newest stamp; None before the first.
        step_ns: Smallest step between its stamps in this pass; None before the second.
        came_s: When its newest frame came.
        left: Pass and stamp of the frame handed over last.
        served: It had its turn in this round (newest frames only).
    """

    waiting: collections.deque[tuple[int, T, float]] = dataclasses.field(default_factory=collections.deque)
    number: int = 0
    newest_ns: int | None = None
    step_ns: int | None = None
    came_s: float = -math.inf
    left: tuple[int, int] = (-1, 0)
    served: bool = False


class StampOrder(Generic[T]):
    """A mailbox (`runtime.latest.Mailbox`) that hands items of several cameras over in the order of their stamps.

    A camera whose next frame is due before the oldest waiting one is waited for: `timeout_s` at most, and not at all
    after `dead_after_s` of silence. A frame that comes later than that is handed over next, out of order. When stamps
    go back (a recording that begins again), everything older is handed over first. Of equal stamps, that of the camera
    which had to wait longest is first: one that returns is noticed before its moment is over.

    With `newest_only` the newest frame of each camera wins. Where the worker cannot keep up, the cameras take turns,
    and what is older than a frame handed over is dropped. Without, nothing is replaced; a full mailbox refuses.

    Args:
        cameras: Names.
        newest_only: For live cameras; False: for replay.
        capacity: Items of all cameras that may wait, without `newest_only`.
        timeout_s: A frame waits so long for other cameras at most, seconds.
        dead_after_s: A camera silent for so long is not waited for, seconds.
    """

    def __init__(self, cameras: Sequence[str], *, newest_only: bool, capacity: int = 64, timeout_s: float = 0.1,
                 dead_after_s: float = 1.0) -> None:
        if capacity < 1:
            raise ConfigError(f"queue capacity = {capacity}: must be at least 1")
        self._ready = threading.Condition()
        self._lanes: dict[str, _Lane[T]] = {name: _Lane() for name in cameras}
        self._newest_only, self._capacity = newest_only, capacity
        self._timeout_s, self._dead_after_s = timeout_s, dead_after_s
        self._began_s = math.inf  # the first frame of all
        self._pass, self._pass_s = 0, -math.inf  # the newest pass and when it began
        self._dropped = self._timeouts = 0

    def put(self, item: T) -> bool:
        """Store `item`; False (and counted as dropped) when there is no room. Never blocks."""
        now_s = time.monotonic()
        with self._ready:
            lane = self._lanes[item.camera]
            self._began_s = min(self._began_s, now_s)
            self._follow(lane, item.stamp_ns, now_s)
            since_s = now_s
            if self._newest_only and lane.waiting:
                since_s = lane.waiting.pop()[2]
                self._dropped += 1
            elif not self._newest_only and self._pending() >= self._capacity:
                self._dropped += 1
                return False
            lane.waiting.append((lane.number, item, since_s))
            self._ready.notify()
        return True

    def take(self, timeout_s: float) -> T | None:
        """The next item, or None if there was none within `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        with self._ready:
            while True:
                now_s = time.monotonic()
                name, wait_s = self._next(now_s)
                if name and wait_s <= 0.0:
                    return self._hand_over(name, now_s)
                if now_s >= deadline_s:
                    return None
                self._ready.wait(min(wait_s, deadline_s - now_s))

    def clear(self) -> int:
        """Forget all waiting items, which count as dropped, and the stamps so far. Returns how many."""
        with self._ready:
            forgotten = self._pending()
            self._lanes = {name: _Lane(number=self._pass) for name in self._lanes}
            self._began_s = math.inf
            self._dropped += forgotten
            return forgotten

    @property
    def pending(self) -> int:
        """Items put and not yet taken."""
        with self._ready:
            return self._pending()

    @property
    def dropped(self) -> int:
        """Items replaced, refused, cleared, or overtaken by another camera's newer ones (`newest_only`)."""
        with self._ready:
            return self._dropped

    @property
    def timeouts(self) -> int:
        """Items handed over although an older one of another camera might still have come."""
        with self._ready:
            return self._timeouts

    def _pending(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def _follow(self, lane: _Lane[T], stamp_ns: int, now_s: float) -> None:
        """Take note of a camera's stamp."""
        if lane.newest_ns is not None and stamp_ns < lane.newest_ns:
            lane.number, lane.step_ns = lane.number + 1, None
        elif lane.newest_ns is not None:
            step_ns = stamp_ns - lane.newest_ns
            lane.step_ns = step_ns if lane.step_ns is None else min(step_ns, lane.step_ns)
        if lane.number > self._pass:
            self._pass, self._pass_s = lane.number, now_s
        elif lane.number < self._pass and now_s - self._pass_s > self._timeout_s:
            lane.number = self._pass  # it goes on as before: another camera's clock was set back, no recording looped
        lane.newest_ns, lane.came_s = stamp_ns, now_s

    def _next(self, now_s: float) -> tuple[str, float]:
        """Whose frame is next ("" if none waits), and the seconds until it may be handed over."""
        filled = {name: lane for name, lane in self._lanes.items() if lane.waiting}
        if not filled:
            return "", math.inf
        unserved = {name: lane for name, lane in filled.items() if not lane.served} or filled
        name = min(unserved, key=lambda n: (unserved[n].waiting[0][0], unserved[n].waiting[0][1].stamp_ns,
                                            unserved[n].left))
        number, item, since_s = unserved[name].waiting[0]
        waits = [min(since_s + self._timeout_s, self._dead_s(lane)) - now_s for lane in self._lanes.values()
                 if self._due(lane, number, item.stamp_ns)]
        return name, max(waits, default=0.0)

    def _dead_s(self, lane: _Lane[T]) -> float:
        """When a camera counts as dead if nothing comes."""
        return max(lane.came_s, self._began_s) + self._dead_after_s

    @staticmethod
    def _due(lane: _Lane[T], number: int, stamp_ns: int) -> bool:
        """Whether a camera may still bring a frame older than one of pass `number` and this stamp."""
        if lane.waiting:
            return False
        if lane.newest_ns is None or lane.number < number:
            return True
        ahead_ns = stamp_ns - lane.newest_ns
        # Stamps jitter, and one frame may be missing from the steps seen: half a step is on the safe side.
        return lane.number == number and ahead_ns > 0 and (lane.step_ns is None or ahead_ns > lane.step_ns // 2)

    def _hand_over(self, name: str, now_s: float) -> T:
        lane = self._lanes[name]
        number, item, _ = lane.waiting[0]
        self._timeouts += any(self._due(other, number, item.stamp_ns) and now_s < self._dead_s(other)
                              for other in self._lanes.values())
        lane.waiting.popleft()
        lane.left = number, item.stamp_ns
        if self._newest_only:
            if lane.served:
                for other in self._lanes.values():
                    other.served = False
            lane.served = True
            for other in self._lanes.values():
                if other.waiting and (other.waiting[0][0], other.waiting[0][1].stamp_ns) < (number, item.stamp_ns):
                    other.waiting.clear()
                    self._dropped += 1
        return item
