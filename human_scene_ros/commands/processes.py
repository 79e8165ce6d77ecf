"""Child processes that never outlive their parent's work: own process groups, logs, bounded ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import yaml

from human_scene_ros.errors import HumanSceneError

LAST_LINES = 12


class ProcessError(HumanSceneError, RuntimeError):
    """A node process ended or did not do what was waited for; the text holds its last lines."""


class NodeProcesses:
    """Node processes of one run; leaving the context ends all of them, however it is left.

    Each process leads a group of its own, so that a Ctrl-C in the terminal reaches only this process, which then
    ends the others in order; whatever a node may have started ends with its group.

    Args:
        domain_id: ROS domain of all of them.
        log_folder: Gets one `<name>.log` per process.
        stop_s: Seconds between SIGINT and SIGTERM, and again until SIGKILL.
    """

    def __init__(self, domain_id: int, log_folder: Path, stop_s: float = 15.0) -> None:
        self.domain_id, self._log_folder, self._stop_s = domain_id, log_folder, stop_s
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._finished: set[str] = set()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> NodeProcesses:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        # A plain SIGTERM or a closed terminal would end this process without its clean-up.
        for number in (signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError):  # not in the main thread: whoever owns that one cleans up
                self._before[number] = signal.signal(number, _as_interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        before = signal.getsignal(signal.SIGINT)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave nodes behind
        try:
            self.stop(*self._processes)
        finally:
            for number, handler in {**self._before, signal.SIGINT: before}.items():
                with contextlib.suppress(ValueError):
                    signal.signal(number, handler)

    def start(self, name: str, parameters: Mapping[str, Any], *, use_sim_time: bool = False, node: str = "",
              namespace: str = "", remap: Mapping[str, str] | None = None) -> None:
        """Start `human_scene_ros.nodes.<node>` with parameters from a file of this run.

        Args:
            name: Of the process here and of its log.
            parameters: Of the node.
            use_sim_time: Follow /clock.
            node: Module; "" = `name`.
            namespace: Of the node; "" = none.
            remap: Its names of topics -> names in the graph.
        """
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in parameters.items()}
        if use_sim_time:
            values["use_sim_time"] = True
        file = self._log_folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain_id), "PYTHONUNBUFFERED": "1",
                       "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "RCUTILS_COLORIZED_OUTPUT": "0"}
        environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        renamed = [f"__ns:=/{namespace}"] if namespace else []
        renamed += [f"{ours}:={theirs}" for ours, theirs in (remap or {}).items()]
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-c", f"from human_scene_ros.nodes.{node or name} import main; main()", "--ros-args",
                 "--params-file", str(file), *(word for rule in renamed for word in ("-r", rule))],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                start_new_session=True)

    def exit_code(self, name: str) -> int | None:
        """None while it runs."""
        return self._processes[name].poll()

    def says(self, name: str, text: str) -> bool:
        """True once the process has printed `text`."""
        return text in self._log(name).read_text(errors="replace")

    def expect_end(self, name: str) -> None:
        """The process may end by itself from now on, with exit code 0."""
        self._finished.add(name)

    def check(self) -> None:
        """Raise `ProcessError` if a process died."""
        for name, process in self._processes.items():
            code = process.poll()
            if code is not None and not (name in self._finished and code == 0):
                raise ProcessError(f"{name} ended with exit code {code}; its last lines:\n{self.last_lines(name)}")

    def last_lines(self, name: str) -> str:
        """End of the log, indented."""
        lines = self._log(name).read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"

    def stop(self, *names: str) -> None:
        """SIGINT, then SIGTERM, then SIGKILL to the whole group, each after a bounded wait."""
        for name in names:
            self._finished.add(name)
        running = [self._processes[name] for name in names if name in self._processes]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            running = [p for p in running if p.poll() is None]
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            deadline_s = time.monotonic() + self._stop_s
            while any(p.poll() is None for p in running) and time.monotonic() < deadline_s:
                time.sleep(0.02)
        for name in names:  # children of a node that has ended already
            if name in self._processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._processes[name].pid, signal.SIGKILL)

    def _log(self, name: str) -> Path:
        return self._log_folder / f"{name}.log"


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
