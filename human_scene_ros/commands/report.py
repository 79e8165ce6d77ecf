"""`human-scene report METRICS.json... --out report.html`: one self-contained page of what was measured.

With `--readme FILE` the block between two marks of a Markdown file is written anew from the same numbers, so that
nobody types them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from human_scene_ros.commands.evaluation_output import read_metrics
from human_scene_ros.errors import SourceError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("metrics", type=Path, nargs="+",
                        help="metrics.json of `human-scene evaluate`, or its folder; NAME=PATH gives it a name")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default report.html)")
    parser.add_argument("--readme", type=Path, metavar="FILE",
                        help="also write the block between the marks of this Markdown file")
    parser.add_argument("--title", default="How good is it?", help="of the page")


def run(arguments: argparse.Namespace) -> int:
    """Make the page."""
    from human_scene_ros.report.page import Evaluation, make_page

    evaluations = []
    for given in arguments.metrics:
        name, _, path = str(given).rpartition("=")
        file = Path(path) / "metrics.json" if Path(path).is_dir() else Path(path)
        evaluations.append(Evaluation(name or _name(file), read_metrics(file), file.parent))
    page = make_page(evaluations, arguments.title)
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SourceError(f"cannot write {arguments.out}: {error.strerror}") from error
    print(f"{arguments.out} ({len(page) / 1e6:.1f} MB)")
    if arguments.readme is not None:
        from human_scene_ros.report.markdown import numbers_block, replace_block

        try:
            before = arguments.readme.read_text(encoding="utf-8")
        except OSError as error:
            raise SourceError(f"cannot read {arguments.readme}: {error.strerror}") from error
        after = replace_block(before, numbers_block(evaluations), str(arguments.readme))
        arguments.readme.write_text(after, encoding="utf-8")
        print(f"{arguments.readme}: {'unchanged' if after == before else 'numbers written'}")
    return 0


def _name(file: Path) -> str:
    """The folder of the file says more than "metrics"."""
    return file.resolve().parent.name if file.name == "metrics.json" else file.stem
