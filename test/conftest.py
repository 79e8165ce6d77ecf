"""Settings of the whole test session: one numeric thread, this machine only, no ROS leftovers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess

# Before numpy and torch are imported: several tests start processes, and each would take all cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# Tests start some two hundred Python processes; each would compile all of our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import pytest  # noqa: E402 (after the variables above)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without ROS only the tests marked `ros` are skipped; the rest of the package must work."""
    if importlib.util.find_spec("rclpy") is not None:
        return
    skip = pytest.mark.skip(reason="rclpy is not importable; run through ./env.sh (after `make env`)")
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(skip)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Killed participants leave segments in /dev/shm; `fastdds shm clean` removes only dead ones."""
    tool = shutil.which("fastdds")
    if tool and not hasattr(session.config, "workerinput"):  # once, before workers start nodes
        subprocess.run([tool, "shm", "clean"], capture_output=True, timeout=60, check=False)
