"""The `human-scene` command: one module of `human_scene_ros.commands` per subcommand (- becomes _), imported on use."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from typing import Any

from human_scene_ros import __version__
from human_scene_ros.errors import HumanSceneError

COMMANDS = {
    "demo": "play a recording through the real ROS 2 nodes and make results and a picture",
    "demo-multi": "the same with several cameras and their fusion",
    "run": "video, folder, camera index or bag -> results, without ROS",
    "calibrate": "find where the cameras of a rig stand from recorded people",
    "evaluate": "measure errors against a truth",
    "report": "make a page of what was measured",
    "bench": "time the stages of the pipeline",
    "check": "compare this installation against a folder of numeric fixtures",
    "convert": "turn official checkpoints into files this package loads",
    "synthesize": "render synthetic worlds with exact truth",
    "train": "train the nano network on synthetic worlds",
}


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole parser; with `only`, just that command's arguments are imported."""
    parser = argparse.ArgumentParser(prog="human-scene", description="Metric human bodies inside a metric map.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log more, keep tracebacks")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=help_text, description=help_text)
        if only == name:
            _module(name).add_arguments(sub)
    return parser


def _module(command: str) -> Any:
    return importlib.import_module(f"human_scene_ros.commands.{command.replace('-', '_')}")


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; errors a user can mend end in one line and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((a for a in argv if a in COMMANDS), None)
    arguments = build_parser(chosen).parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING,
                        format="%(levelname)s %(name)s: %(message)s")
    module = _module(arguments.command)
    try:
        code = int(module.run(arguments) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `human-scene ... | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except HumanSceneError as error:
        if arguments.verbose:
            raise
        print(f"human-scene {arguments.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be made, a disk that is full
        if arguments.verbose or error.filename is None:
            raise
        print(f"human-scene {arguments.command}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
