"""What holds for every subcommand."""

from __future__ import annotations

import subprocess
import sys


def test_a_reader_that_has_enough_ends_the_command_quietly():
    program = ("import sys; from human_scene_ros.cli import main; "
               "sys.exit(main(['bench', 'fusion', '--frames', '3', '--json']))")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    complaints = process.stderr.read().decode()
    assert process.wait(timeout=60) == 141 and complaints == ""
