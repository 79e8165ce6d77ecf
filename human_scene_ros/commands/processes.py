"""Child processes that never outlive their parent's work: own process groups, logs, bounded ends."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import yaml

from human_scene_ros.errors import HumanSceneError

LAST_LINES = 12

START_LIMIT_S = 120.0
"""From the start of the processes until all are matched; loading torch on a busy machine is slow."""

STALL_LIMIT_S = 120.0
"""Without anything new for so long, a run is given up."""

SIGN_OF_LIFE_S = 10.0


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
        self._peak_rss_mib: dict[str, float] = {}

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
            with contextlib.suppress(OSError):  # it has ended
                if match := re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text(), re.M):
                    self._peak_rss_mib[name] = round(int(match[1]) / 1024.0, 1)
            if code is not None and not (name in self._finished and code == 0):
                raise ProcessError(f"{name} ended with exit code {code}; its last lines:\n{self.last_lines(name)}")

    @property
    def peak_rss_mib(self) -> dict[str, float]:
        """Most memory that each process has held until it was last checked alive, MiB, as Linux counts it (VmHWM)."""
        return dict(self._peak_rss_mib)

    def last_lines(self, name: str) -> str:
        """End of the log, indented."""
        lines = self._log(name).read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"

    def wait_for(self, conditions: Iterable[tuple[str, Callable[[], bool]]], limit_s: float = START_LIMIT_S) -> None:
        """Wait for one condition after the other.

        Args:
            conditions: What is waited for, beginning with the name of the process to blame, and whether it is so.
            limit_s: For all together.

        Raises:
            ProcessError: A process died or the time is over; the text holds the last lines of the one to blame.
        """
        deadline_s = time.monotonic() + limit_s
        for what, condition in conditions:
            while not condition():
                self.check()
                if time.monotonic() > deadline_s:
                    raise ProcessError(f"waited {limit_s:.0f} s for {what}; its last lines:\n"
                                       f"{self.last_lines(what.split(' ', 1)[0])}")
                time.sleep(0.05)

    def follow(self, count: Callable[[], int], settled: Callable[[float], bool], *, to_blame: Sequence[str],
               total: int | None = None, unit: str = "frame", say: Callable[[str], None] | None = None) -> None:
        """Show progress until all is done: a bar on a terminal, else a line now and then.

        Args:
            count: Things done so far.
            settled: Whether these were all, given the seconds since the last one.
            to_blame: Processes whose last lines tell why nothing goes on.
            total: Things to do, if known.
            unit: Of the things.
            say: Prints a line; None: nothing is shown.

        Raises:
            ProcessError: A process died, or nothing was done for `STALL_LIMIT_S`.
        """
        from tqdm import tqdm

        changed_s = said_s = time.monotonic()
        with tqdm(total=total, unit=unit, desc="nodes", disable=None if say else True, file=sys.stderr) as bar:
            done = 0
            while not settled(time.monotonic() - changed_s):
                self.check()
                now, now_s = count(), time.monotonic()
                if now != done:
                    bar.update(now - done)
                    done, changed_s = now, now_s
                if say and bar.disable and now_s - said_s > SIGN_OF_LIFE_S:
                    said_s = now_s
                    say(f"         {done} of {total or '?'} {unit}s")
                if now_s - changed_s > STALL_LIMIT_S:
                    ends = "\n".join(f"{who}:\n{self.last_lines(who)}" for who in to_blame)
                    raise ProcessError(f"no progress for {STALL_LIMIT_S:.0f} s after {done} of {total or 'all'} "
                                       f"{unit}s; the last lines of\n{ends}")
                time.sleep(0.05)
            bar.update(count() - done)

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


def require_ros() -> None:
    """Raise `ProcessError` with what to do if there is no ROS here, or our messages are not built."""
    for module in ("rclpy", "human_scene_ros.msg"):
        if importlib.util.find_spec(module) is None:
            raise ProcessError(f"{module} is not importable: run './env.sh human-scene ...' after 'make env' "
                               "(on a robot: after sourcing its ROS workspace)")


@contextlib.contextmanager
def free_domain(first: int = 80, last: int = 99) -> Iterator[int]:
    """A ROS domain that no other run of this kind on this machine uses, as long as the context lasts."""
    for domain_id in range(first, last + 1):
        handle = (Path(tempfile.gettempdir()) / f"human_scene_domain_{domain_id}.lock").open("a")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            continue
        try:
            yield domain_id
        finally:
            handle.close()
        return
    raise ProcessError(f"all ROS domains {first} to {last} are taken by other runs on this machine")
