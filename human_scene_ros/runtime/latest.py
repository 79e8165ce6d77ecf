"""Hand items from callbacks to the one worker thread that owns the device; every drop is counted.

`LatestSlot` is for live cameras (the newest frame wins), `BoundedQueue` for replay (every frame is
processed, in order). Both have the same methods, so the worker does not know which one feeds it.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from human_scene_ros.errors import ConfigError

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Mailbox(Protocol[T]):
    """What the worker needs from a `LatestSlot` or a `BoundedQueue`."""

    def put(self, item: T) -> bool: ...

    def take(self, timeout_s: float) -> T | None: ...

    def clear(self) -> int: ...

    @property
    def pending(self) -> int: ...

    @property
    def dropped(self) -> int: ...


class LatestSlot(Generic[T]):
    """Hands the newest item from one thread to another; older ones are dropped and counted."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._item: T | None = None
        self._dropped = 0

    def put(self, item: T) -> bool:
        """Store `item`, replacing one that nobody took. Never blocks; always True."""
        with self._ready:
            self._dropped += self._item is not None
            self._item = item
            self._ready.notify()
        return True

    def take(self, timeout_s: float) -> T | None:
        """The newest item, or None if none came within `timeout_s`."""
        with self._ready:
            self._ready.wait_for(lambda: self._item is not None, timeout_s)
            item, self._item = self._item, None
            return item

    def clear(self) -> int:
        """Forget the waiting item; it counts as dropped. Returns how many were forgotten (0 or 1)."""
        with self._ready:
            forgotten = int(self._item is not None)
            self._item = None
            self._dropped += forgotten
            return forgotten

    @property
    def pending(self) -> int:
        """Items put and not yet taken."""
        with self._ready:
            return int(self._item is not None)

    @property
    def dropped(self) -> int:
        """Items that were never taken."""
        with self._ready:
            return self._dropped


class BoundedQueue(Generic[T]):
    """First in, first out, nothing replaced: for replay, where every frame counts.

    `put` never blocks, for it runs in the executor's thread. When the queue is full the *new* item is
    refused and counted, so that a sender without flow control loses frames visibly, not silently.

    Args:
        capacity: Items that may wait, at least 1.
    """

    def __init__(self, capacity: int = 64) -> None:
        if capacity < 1:
            raise ConfigError(f"queue capacity = {capacity}: must be at least 1")
        self._ready = threading.Condition()
        self._items: collections.deque[T] = collections.deque()
        self._capacity = capacity
        self._dropped = 0

    def put(self, item: T) -> bool:
        """Append `item`; False (and counted as dropped) when the queue is full."""
        with self._ready:
            if len(self._items) >= self._capacity:
                self._dropped += 1
                return False
            self._items.append(item)
            self._ready.notify()
            return True

    def take(self, timeout_s: float) -> T | None:
        """The oldest item, or None if none came within `timeout_s`."""
        with self._ready:
            self._ready.wait_for(lambda: bool(self._items), timeout_s)
            return self._items.popleft() if self._items else None

    def clear(self) -> int:
        """Forget all waiting items; they count as dropped. Returns how many."""
        with self._ready:
            forgotten = len(self._items)
            self._items.clear()
            self._dropped += forgotten
            return forgotten

    @property
    def pending(self) -> int:
        """Items put and not yet taken."""
        with self._ready:
            return len(self._items)

    @property
    def dropped(self) -> int:
        """Items refused or cleared."""
        with self._ready:
            return self._dropped


class Worker(Generic[T]):
    """One thread that takes items from a mailbox and processes them; its death is reported, never silent.

    Args:
        mailbox: Where items come from.
        process: Called in the worker thread with each item. An exception ends the worker: errors that
            concern only one item must be handled inside.
        on_failure: Called once, from the worker thread, with the exception that ended it.
        on_idle: Called from the worker thread when nothing came for `idle_s`.
        name: Name of the thread.
        idle_s: Longest wait for an item; also bounds how long `stop` waits for an idle worker.
    """

    def __init__(self, mailbox: Mailbox[T], process: Callable[[T], None], *,
                 on_failure: Callable[[BaseException], None] | None = None,
                 on_idle: Callable[[], None] | None = None, name: str = "worker", idle_s: float = 0.1) -> None:
        self._mailbox = mailbox
        self._process = process
        self._on_failure = on_failure
        self._on_idle = on_idle
        self._idle_s = idle_s
        self._stopping = threading.Event()
        self._busy = threading.Event()
        self._failure: BaseException | None = None
        # A daemon, so that a process whose main thread is told to end is not held by a hung device.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; once per worker."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ask the thread to end after its current item; True when it has ended within `timeout_s`."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """True while an item is being processed."""
        return self._busy.is_set()

    @property
    def failure(self) -> BaseException | None:
        """The exception that ended the worker, None if there was none."""
        return self._failure

    def check(self) -> None:
        """Raise RuntimeError if the worker died of an exception (which is its cause)."""
        if self._failure is not None:
            raise RuntimeError(
                f"worker thread '{self._thread.name}' died: {type(self._failure).__name__}: {self._failure}"
            ) from self._failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                item = self._mailbox.take(self._idle_s)
                if item is None:
                    if self._on_idle is not None:
                        self._on_idle()
                    continue
                self._busy.set()
                try:
                    self._process(item)
                finally:
                    self._busy.clear()
        except BaseException as error:  # noqa: BLE001 - whatever it was, somebody must hear of it
            self._failure = error
            logger.exception("worker thread '%s' died", self._thread.name)
            if self._on_failure is not None:
                self._on_failure(error)
