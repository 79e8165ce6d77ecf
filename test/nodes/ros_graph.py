"""Real node processes and a test node beside them, on a ROS domain of their own. For tests marked `ros`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from helpers import REPOSITORY

LIMIT_S = 60.0
"""Longest wait for anything; the machine may be busy with other work."""


class Process:
    """One node process; its output goes to a file."""

    def __init__(self, name: str, domain: int, log: Path, parameters: dict[str, Any], remap: dict[str, str],
                 environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, str(REPOSITORY / "scripts" / name), "--ros-args"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={_yaml(value)}"]
        for key, topic in remap.items():
            command += ["-r", f"{key}:={topic}"]
        self.name, self._log = name, log
        self._process = subprocess.Popen(
            command, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1", **(environment or {})})

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_output(self, text: str, limit_s: float = LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while text not in self.output:
            assert self.running, f"{self.name} ended with {self._process.poll()}:\n{self.output}"
            assert time.monotonic() < deadline, f"{self.name} did not say '{text}':\n{self.output}"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs:\n{self.output}") from None

    def stop(self) -> int:
        """SIGINT, then SIGKILL for what does not listen; the exit code."""
        if self.running:
            self.signal(signal.SIGINT)
            try:
                self._process.wait(20.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode


class Graph:
    """A context and a node of the test on `domain`, and the processes it started."""

    def __init__(self, domain: int, folder: Path) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.domain, self._folder = domain, folder
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("test_node", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._processes: list[Process] = []

    def start(self, name: str, parameters: dict[str, Any] | None = None, remap: dict[str, str] | None = None,
              environment: dict[str, str] | None = None) -> Process:
        log = self._folder / f"{name}_{len(self._processes)}.log"
        process = Process(name, self.domain, log, parameters or {}, remap or {}, environment)
        self._processes.append(process)
        return process

    def collect(self, message_class: type, topic: str, qos: Any = 50) -> list[Any]:
        """A list that fills while the graph spins."""
        messages: list[Any] = []
        self.node.create_subscription(message_class, topic, messages.append, qos)
        return messages

    def publisher(self, message_class: type, topic: str, qos: Any = 50) -> Any:
        return self.node.create_publisher(message_class, topic, qos)

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
        """Spin until `condition()` is true; fail with the output of all processes otherwise."""
        deadline = time.monotonic() + limit_s
        while not (result := condition()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {p.name}\n{p.output[-3000:]}" for p in self._processes)
                raise AssertionError(f"waited {limit_s:g} s for {what}\n{logs}")
            self._executor.spin_once(timeout_sec=0.05)
        return result

    def wait_connected(self, line: str, output: str, count: int = 1) -> None:
        """Until a node says that so many subscriptions are connected to its output: what it sends before is lost.

        Args:
            line: Of the node in /diagnostics, for instance "human_scene_fusion: Sync".
            output: Name of the topic there.
            count: Subscriptions.
        """
        from diagnostic_msgs.msg import DiagnosticArray

        reports: list[Any] = []
        subscription = self.node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, 50)

        def connected() -> bool:
            values = [{v.key: v.value for v in s.values} for r in reports for s in r.status if s.name == line]
            return bool(values) and int(values[-1][f"{output}_subscribers"]) >= count

        self.wait(connected, f"{line}: {count} subscriptions of {output}")
        self.node.destroy_subscription(subscription)

    def spin(self, seconds: float) -> None:
        """For the rare case that nothing must happen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, service_class: type, name: str, request: Any) -> Any:
        client = self.node.create_client(service_class, name)
        self.wait(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.wait(future.done, f"answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def close(self) -> None:
        import rclpy

        for process in self._processes:
            process.stop()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@contextlib.contextmanager
def graph(domain: int, folder: Path) -> Iterator[Graph]:
    """A graph that has its domain alone on this machine: whoever else runs tests on it is waited for."""
    with (Path(tempfile.gettempdir()) / f"human_scene_domain_{domain}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opened = Graph(domain, folder)
        try:
            yield opened
        finally:
            opened.close()


def untrained_checkpoint(folder: Path) -> Path:
    """A nano network with random weights: enough for everything but what it sees."""
    import torch

    from human_scene_ros.model.checkpoint import save_checkpoint
    from human_scene_ros.model.network import HumanSceneNetwork
    from human_scene_ros.model.presets import preset

    path = folder / "untrained.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_checkpoint(path, HumanSceneNetwork(preset("nano")).eval(), {"note": "untrained"})
    return path


def image_message(stamp_ns: int, image: np.ndarray, encoding: str = "rgb8", frame_id: str = "optical") -> Any:
    from sensor_msgs.msg import Image

    from human_scene_ros.nodes.convert import fill
    from human_scene_ros.sources.message_fields import image_fields

    return fill(Image(), image_fields(stamp_ns, frame_id, image, encoding))


def picture(width: int = 160, height: int = 112, shift: int = 0) -> np.ndarray:
    """A textured image; `shift` moves it sideways."""
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, (width + 256) // 8, 3), np.uint8)
    large = noise.repeat(8, axis=0).repeat(8, axis=1)
    return np.ascontiguousarray(large[:, shift : shift + width])


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'" if isinstance(value, str) else str(value)
