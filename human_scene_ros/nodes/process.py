"""The life of a node process. Exit 0 on signals, 1 with the reason after a failure, 2 on bad settings.

Under `ros2 launch` a node may get SIGINT twice (from the terminal's group and from launch); the second must
not interrupt the clean-up.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from human_scene_ros.errors import HumanSceneError

if TYPE_CHECKING:
    from rclpy.node import Node


class RunnableNode(Protocol):
    """A node that may end the process by itself: `failure` is the reason, "" while all is well."""

    failure: str

    def destroy_node(self) -> Any: ...


def run_node(make_node: Callable[[], Node], argv: list[str] | None = None) -> int:
    """Make the node, spin it in a single-threaded executor until shutdown, and return the exit code.

    Args:
        make_node: Called after `rclpy.init`. If the node has a method `start`, it is called before spinning
            (load weights, say that it is ready); if it has an attribute `failure` that is not empty at the
            end, the exit code is 1. A node ends its process by `rclpy.try_shutdown()`.
        argv: Command line; None = that of the process.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    rclpy.init(args=sys.argv if argv is None else argv)
    node: Any = None
    name, code = "human_scene_ros", 0
    try:
        executor = SingleThreadedExecutor()  # before `start`, which may end the process at once
        node = make_node()
        name = node.get_name()
        if hasattr(node, "start"):
            node.start()
        executor.add_node(node)
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # rcl's; a signal came after the executor had looked at the context, before it waited
        if rclpy.ok():
            raise
    except HumanSceneError as error:
        # The logger may not exist yet; standard error always does.
        print(f"[{name}] {error}", file=sys.stderr, flush=True)
        code = 2
    finally:
        _ignore_signals()
        if node is not None:
            failure = getattr(node, "failure", "")
            node.destroy_node()
            if failure:
                print(f"[{name}] {failure}", file=sys.stderr, flush=True)
                code = 1
        rclpy.try_shutdown()
    return code


def _ignore_signals() -> None:
    """For good, also where another one comes while this is done."""
    while True:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            return
        except KeyboardInterrupt:
            continue


def end_process(code: int) -> NoReturn:
    """End the process of a node that `run_node` has cleaned up, as a C program ends: without Python's own clean-up.

    That takes seconds on a busy machine once torch is loaded, where a launch system kills what takes more than five;
    and now and then it crashes, where `torch.library` takes its operators back. What C and C++ libraries clean up
    stays: `os._exit` would leave the shared memory of the middleware behind.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.PyDLL(None).exit(code)  # keeps the interpreter's lock: no thread of Python's runs any more
    raise AssertionError("exit(3) does not return")
