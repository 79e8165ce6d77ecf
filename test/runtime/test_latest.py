"""Mailboxes lose nothing uncounted, and a dead worker is heard."""

from __future__ import annotations

import threading

import pytest

from human_scene_ros.errors import ConfigError
from human_scene_ros.runtime.latest import BoundedQueue, LatestSlot, Worker


def test_slot_hands_over_the_newest_and_counts_the_rest():
    slot: LatestSlot[int] = LatestSlot()
    for i in range(5):
        slot.put(i)
    assert (slot.pending, slot.dropped) == (1, 4)
    assert slot.take(0.0) == 4
    assert slot.take(0.0) is None
    assert (slot.pending, slot.dropped) == (0, 4)


def test_slot_clear_counts_the_waiting_item():
    slot: LatestSlot[int] = LatestSlot()
    slot.put(1)
    assert slot.clear() == 1
    assert slot.clear() == 0
    assert slot.dropped == 1


def test_queue_keeps_order_and_refuses_when_full():
    queue: BoundedQueue[int] = BoundedQueue(3)
    assert [queue.put(i) for i in range(5)] == [True, True, True, False, False]
    assert (queue.pending, queue.dropped) == (3, 2)
    assert [queue.take(0.0) for _ in range(4)] == [0, 1, 2, None]
    queue.put(9)
    assert queue.clear() == 1
    assert queue.dropped == 3


def test_queue_needs_room():
    with pytest.raises(ConfigError, match="capacity = 0"):
        BoundedQueue(0)


@pytest.mark.parametrize("mailbox", [LatestSlot, BoundedQueue])
def test_take_waits_for_another_thread(mailbox):
    box = mailbox()
    threading.Timer(0.05, box.put, args=["late"]).start()
    assert box.take(10.0) == "late"


def test_worker_processes_in_order_and_stops():
    queue: BoundedQueue[int] = BoundedQueue(100)
    seen: list[int] = []
    done = threading.Event()

    def process(item: int) -> None:
        seen.append(item)
        if item == 49:
            done.set()

    worker = Worker(queue, process, idle_s=0.02)
    worker.start()
    for i in range(50):
        assert queue.put(i)
    assert done.wait(10.0)
    assert worker.stop()
    assert seen == list(range(50))
    assert worker.failure is None
    worker.check()


def test_worker_reports_its_death_with_the_reason():
    queue: BoundedQueue[int] = BoundedQueue(4)
    heard: list[BaseException] = []
    told = threading.Event()

    def process(item: int) -> None:
        raise ZeroDivisionError(f"item {item}")

    def on_failure(error: BaseException) -> None:
        heard.append(error)
        told.set()

    worker = Worker(queue, process, on_failure=on_failure, name="device", idle_s=0.02)
    worker.start()
    queue.put(7)
    assert told.wait(10.0)
    assert worker.stop()
    assert heard == [worker.failure]
    with pytest.raises(RuntimeError, match=r"'device' died: ZeroDivisionError: item 7"):
        worker.check()


def test_idle_worker_calls_back():
    idle = threading.Event()
    worker = Worker(LatestSlot(), lambda item: None, on_idle=idle.set, idle_s=0.01)
    worker.start()
    assert idle.wait(10.0)
    assert worker.stop()
