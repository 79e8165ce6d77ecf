"""How a node process ends: when a signal meets the executor at its worst moment, and without Python's clean-up."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from human_scene_ros.commands.processes import free_domain

PROGRAM = """
import sys
import rclpy
from rclpy.executors import SingleThreadedExecutor
from human_scene_ros.nodes.process import run_node

def spin(self):
    if sys.argv[1] == "signalled":
        rclpy.shutdown()  # as rclpy's handler does, after the executor's last look at the context
    raise RuntimeError("failed to initialize wait set")

SingleThreadedExecutor.spin = spin
sys.exit(run_node(lambda: rclpy.create_node("short"), []))
"""


@pytest.mark.parametrize(("case", "code"), [("signalled", 0), ("broken", 1)])
def test_a_wait_that_fails_is_an_end_only_after_a_signal(case, code):
    pytest.importorskip("rclpy")
    with free_domain() as domain_id:
        ended = subprocess.run([sys.executable, "-c", PROGRAM, case], capture_output=True, text=True, timeout=60,
                               env={**os.environ, "ROS_DOMAIN_ID": str(domain_id)})
    assert ended.returncode == code, ended.stderr
    assert ("wait set" in ended.stderr) == (code == 1)


def test_the_end_keeps_what_was_written_and_leaves_python_as_it_is():
    program = ("import atexit, sys; from human_scene_ros.nodes.process import end_process; "
               "atexit.register(print, 'cleaned up'); sys.stdout.write('told'); end_process(3)")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (3, "told"), ended.stderr
