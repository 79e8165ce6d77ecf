"""`human-scene check DIR`: is this installation numerically right? Compares against a folder of fixtures.

Two layouts are known: network folders (config.json, weights.safetensors, streams; any dimensions and seeds) and
golden folders of metrics and of the fusion. A folder may hold any subset of the files; unknown files are named,
not passed over.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from human_scene_ros.errors import SourceError

UNREADABLE = (LookupError, ValueError, TypeError, ArithmeticError, OSError, EOFError, RuntimeError, struct.error,
              zipfile.BadZipFile, zlib.error)
COMPANIONS = {"smplx_standin"}  # read by other checks, nothing to compare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("folder", type=Path, help="folder with .npz fixtures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--all", action="store_true", help="list every array, not only the worst of each file")
    parser.add_argument("--device", default="cpu", help="torch device of the network (default cpu)")


def run(arguments: argparse.Namespace) -> int:
    """Compare, report, and return 1 if anything is off."""
    report = check_folder(arguments.folder, arguments.device)
    if arguments.json:
        print(json.dumps(report))
    else:
        print_table(report, arguments.all)
    return 0 if report["passed"] else 1


def check_folder(folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Run every check that the folder has files for.

    Returns:
        passed: all arrays are within their limits. worst: array name to relative RMS, the worst over the
        files and frames it occurs in (null: shapes, places or detections differ, or we do not produce it).
        files: file to its arrays with error, limit and verdict. failures: what failed, in words.
        skipped: files nothing is known about.

    Raises:
        SourceError: The folder is missing or holds nothing that can be compared.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; expected one with .npz fixtures")
    from human_scene_ros.commands import check_fusion, check_network
    from human_scene_ros.evaluation import golden

    results, skipped, problems = {}, [], []
    for path in sorted(folder.glob("*.npz")):
        if path.stem in COMPANIONS:
            continue
        try:
            of_network = check_network.check_file(path, device) if check_network.known(path) else []
            results[path.name] = [*of_network, *golden.check_file(path), *check_fusion.check_file(path)]
        except check_network.HumanSceneError as error:
            results[path.name] = []
            problems.append(f"{path.name}: {error}")
            continue
        except UNREADABLE as error:
            results[path.name] = []
            text = " ".join(str(error).split())
            problems.append(f"{path.name} does not have the layout of its name: {type(error).__name__}: {text}")
            continue
        if results[path.name]:
            continue
        if path.stem in golden.CHECKS or path.stem in check_fusion.CHECKS or check_network.known(path):
            problems.append(f"{path.name} does not have the layout of its name: no array of it can be compared")
        else:
            del results[path.name]
            skipped.append(path.name)
    if not results:
        found = sorted(p.name for p in folder.iterdir())[:10]
        raise SourceError(f"{folder} holds no fixture file that can be compared (found {found}); expected "
                          f"stream_*.npz with config.json and weights.safetensors, or golden metric files")
    return summarise(results, skipped, problems)


def summarise(results: dict[str, list[Any]], skipped: list[str], problems: list[str]) -> dict[str, Any]:
    """The report of `check_folder` from comparisons by file."""
    worst: dict[str, float] = {}
    files: dict[str, dict[str, Any]] = {}
    failures = list(problems)
    for file, comparisons in results.items():
        files[file] = {}
        for c in comparisons:
            array = c.name.split("/", 1)[1]
            worst[array] = max(worst.get(array, 0.0), c.error)
            files[file][array] = {"error": _number(c.error), "limit": c.limit, "passed": c.passed}
            if not c.passed:
                failures.append(f"{file}: {array}: relative RMS {c.error:.3g}, limit {c.limit:.3g}"
                                if math.isfinite(c.error) else
                                f"{file}: {array}: missing, or shape, detections or places of NaN differ")
    return {"passed": not failures, "worst": {name: _number(error) for name, error in sorted(worst.items())},
            "failures": failures, "skipped": skipped, "files": files}


def _number(error: float) -> float | None:
    return float(error) if math.isfinite(error) else None  # JSON knows no infinity


def print_table(report: dict[str, Any], every_array: bool) -> None:
    """One line per file (its worst array), or one per array."""
    def rank(item: tuple[str, dict[str, Any]]) -> float:
        entry = item[1]
        if entry["error"] is None:
            return math.inf
        return entry["error"] / entry["limit"] if entry["limit"] else (math.inf if entry["error"] else 0.0)

    for file, arrays in report["files"].items():
        ordered = sorted(arrays.items(), key=rank, reverse=True)
        passed = sum(entry["passed"] for entry in arrays.values())
        print(f"{file}: {passed} of {len(arrays)} arrays within their limits")
        for name, entry in ordered if every_array else ordered[:1]:
            error = "differs" if entry["error"] is None else f"{entry['error']:.2e}"
            print(f"    {name:<34} {error:>9}  limit {entry['limit']:.0e}  {'ok' if entry['passed'] else 'FAILED'}")
    for name in report["skipped"]:
        print(f"{name}: skipped, this package computes nothing of the kind")
    for failure in report["failures"]:
        print(f"FAILED {failure}")
    print("passed" if report["passed"] else f"{len(report['failures'])} failure(s)")
