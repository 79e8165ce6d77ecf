"""What an evaluation leaves behind: result of each sequence, tables per frame, metrics.json, the terminal's table.

    OUT/metrics.json                          everything, with where it comes from
    OUT/sequences/NAME/result.json            one sequence: resuming begins here
    OUT/sequences/NAME/frames.csv people.csv  one row per frame, one per true person and frame
    OUT/sequences/NAME/worst_0.jpg depth.jpg  what to look at
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from human_scene_ros import __version__
from human_scene_ros.errors import SourceError
from human_scene_ros.evaluation.sequence import SequenceResult
from human_scene_ros.evaluation.values import Metric, from_json, human3r_log, pooled_frames

SCHEMA = "human_scene_ros/metrics/1"
HUMAN3R_KEYS = ("wa_mpjpe_mm", "w_mpjpe_mm", "rte_pct", "pa_mpjpe_mm", "mpjpe_mm", "root_error_mm")
"""Metrics that Human3R's log prints with one decimal."""

NOT_MEASURED = (
    "PVE, MVE and foot sliding on vertices: they need the licensed SMPL mesh and its regressors; foot sliding here is "
    "that of the ankle and foot joints",
    "joints 22 and 23 of SMPL (hands): the errors are over the 22 joints that SMPL-X shares with SMPL",
    "hands and face",
)

TABLE = (
    ("head_recall", "people found", 100.0, "%"), ("head_precision", "detections that are people", 100.0, "%"),
    ("idf1", "IDF1", 100.0, "%"), ("mota", "MOTA", 100.0, "%"),
    ("pa_mpjpe_mm", "PA-MPJPE", 1.0, "mm"), ("mpjpe_mm", "MPJPE, hips aligned", 1.0, "mm"),
    ("root_error_mm", "root error", 1.0, "mm"), ("pelvis_rel_error", "distance to people", 100.0, "%"),
    ("wa_mpjpe_mm", "WA-MPJPE", 1.0, "mm"), ("w_mpjpe_mm", "W-MPJPE", 1.0, "mm"), ("rte_pct", "RTE", 1.0, "%"),
    ("coverage", "coverage of the tracks", 100.0, "%"), ("jitter_10m_s3", "jitter", 1.0, "10 m/s3"),
    ("ate_se3_m", "camera ATE, SE(3)", 100.0, "cm"), ("ate_sim3_m", "camera ATE, Sim(3)", 100.0, "cm"),
    ("rpe_rot_deg", "camera RPE rotation", 1.0, "deg"), ("depth_absrel", "depth AbsRel, metric", 1.0, ""),
    ("depth_absrel_median", "depth AbsRel, median", 1.0, ""), ("depth_delta1", "depth delta1", 100.0, "%"),
    ("person_recall", "people of the rig found", 100.0, "%"),
    ("person_precision", "fused people that are there", 100.0, "%"), ("rig_w_mpjpe_m", "rig W-MPJPE", 1.0, "m"),
    ("rig_w_mpjpe_pose_m", "rig W-MPJPE, by camera poses", 1.0, "m"), ("rig_ga_mpjpe_m", "rig GA-MPJPE", 1.0, "m"),
    ("rig_pa_mpjpe_m", "rig PA-MPJPE", 1.0, "m"), ("rig_te_m", "rig camera TE", 1.0, "m"),
    ("rig_s_te_m", "rig camera s-TE", 1.0, "m"), ("rig_ae_deg", "rig camera AE", 1.0, "deg"),
    ("rig_rra_10deg", "rig RRA@10", 1.0, ""), ("rig_cca_10pct", "rig CCA@10", 1.0, ""),
    ("rig_s_cca_10pct", "rig s-CCA@10", 1.0, ""),
    ("association_accuracy", "pairs of views decided right", 100.0, "%"),
    ("latency_p50_ms", "latency p50", 1.0, "ms"), ("latency_p95_ms", "latency p95", 1.0, "ms"),
)
"""Key, name, factor and unit of the rows on the terminal."""


_NEEDED = ("mode", "created", "git", "code_sha256", "weights", "parameters", "hardware", "software", "totals",
           "sequences")
_NEEDED_OF_SEQUENCE = ("name", "counts", "metrics", "joints", "depth_by_distance", "files")


# --- where numbers come from ------------------------------------------------------------------------------------

_RESULT_LAYERS = ("geometry", "body", "model", "mapping", "runtime", "sources", "fusion", "evaluation", "scene.py")


def code_sha256(layers: Sequence[str] = _RESULT_LAYERS) -> str:
    """Hash of the modules that decide what comes out of a recording, or of others."""
    package = Path(__file__).resolve().parents[1]
    files = [p for layer in layers
             for p in ([package / layer] if layer.endswith(".py") else sorted((package / layer).rglob("*.py")))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file, or of the storage files of a recording folder."""
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def git_state() -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that this package runs from; None outside of one."""
    folder = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10,
                                  check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (folder / "package.xml").is_file():
        return {"commit": None, "dirty": None}
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def provenance(parameters: Mapping[str, Any], weights: Mapping[str, Any] | None) -> dict[str, Any]:
    """Everything that is needed to get the same numbers again."""
    import numpy as np

    software = {"human_scene_ros": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for name in ("torch", "cv2", "scipy"):
        module = sys.modules.get(name)
        if module is not None:
            software[name] = str(module.__version__)
    return {"created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "git": git_state(), "code_sha256": code_sha256(), "weights": weights, "parameters": dict(parameters),
            "hardware": hardware(), "software": software}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, GPU if torch is loaded and sees one."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text(errors="replace").splitlines()
                  if line.startswith("model name")]
        cpu = models[0] if models else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "gpu": gpu,
            "system": f"{platform.system()} {platform.machine()}"}


# --- one sequence ------------------------------------------------------------------------------------------------

def write_sequence(folder: Path, name: str, result: SequenceResult, more: Mapping[str, Any]) -> dict[str, Any]:
    """The tables and `result.json` of one sequence; returns what is in the latter.

    The JSON comes last and in one step: where it is, the sequence is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "frames.csv", result.frames)
    write_csv(folder / "people.csv", result.people)
    content = {
        "name": name, "counts": result.counts, "metrics": {k: m.to_json() for k, m in result.metrics.items()},
        "scene": result.scene, "joints": _plain(result.joints), "depth_by_distance": _plain(result.depth_by_distance),
        "files": {"frames": "frames.csv", "people": "people.csv"}, **more}
    write_json(folder / "result.json", content)
    return content


def located(content: Mapping[str, Any], folder: Path, out: Path) -> dict[str, Any]:
    """A result with file names relative to `out`, the folder of metrics.json."""
    prefix, pictures = folder.relative_to(out).as_posix(), content["pictures"]

    def moved(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if entry is None else {**entry, "file": f"{prefix}/{entry['file']}"}

    return {**content, "files": {k: f"{prefix}/{v}" for k, v in content["files"].items()},
            "pictures": {"worst": [moved(w) for w in pictures["worst"]], "depth": moved(pictures["depth"])}}


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """One row per entry; what is unknown stays empty, floats keep all digits that decide (nine)."""
    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return ""
        return f"{value:.9g}" if isinstance(value, float) else str(value)

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([text(v) for v in row] for row in zip(*columns.values(), strict=True))


def write_json(path: Path, content: Any) -> None:
    """Written beside and moved, so that nobody reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _plain(rows: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    return {name: [None if isinstance(v, float) and not math.isfinite(v) else v for v in column]
            for name, column in rows.items()}


def safe_name(text: str) -> str:
    """A file name of a sequence name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip("._") or "sequence"


# --- all sequences ---------------------------------------------------------------------------------------------

def write_metrics(out: Path, mode: str, sequences: Sequence[Mapping[str, Any]], origin: Mapping[str, Any],
                  not_measured: Iterable[str] = ()) -> dict[str, Any]:
    """OUT/metrics.json: averages over the sequences in both conventions, the sequences, the provenance."""
    values = [{k: from_json(m) for k, m in s["metrics"].items()} for s in sequences]
    totals = {"pooled_frames": {k: m.to_json() for k, m in pooled_frames(values).items()},
              "human3r_log": {k: m.to_json() for k, m in human3r_log(values, HUMAN3R_KEYS).items()}}
    content = {"schema": SCHEMA, "mode": mode, **origin, "totals": totals,
               "sequences": [dict(s) for s in sequences], "not_measured": [*NOT_MEASURED, *not_measured]}
    write_json(out / "metrics.json", content)
    return content


def read_metrics(path: Path) -> dict[str, Any]:
    """A metrics.json.

    Raises:
        SourceError: Missing, or of another kind.
    """
    file = path / "metrics.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"{file} does not exist; `human-scene evaluate` writes it") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise SourceError(f"{file} has schema {found!r}; expected {SCHEMA!r}: run `human-scene evaluate` again")
    lacking = [key for key in _NEEDED if key not in content]
    for sequence in content.get("sequences", []):
        lacking += [f"sequences[].{key}" for key in _NEEDED_OF_SEQUENCE if key not in sequence]
    if lacking:
        raise SourceError(f"{file} lacks {', '.join(dict.fromkeys(lacking))}: run `human-scene evaluate` again")
    return content


def table(content: Mapping[str, Any]) -> str:
    """The text that ends an evaluation: one column per sequence and one for all (four sequences at most)."""
    sequences = content["sequences"]
    shown = sequences if len(sequences) <= 4 else []
    columns = [("all" if len(sequences) > 1 else sequences[0]["name"], content["totals"]["pooled_frames"])]
    if len(sequences) > 1:
        columns += [(s["name"], s["metrics"]) for s in shown]
    names = [name[-22:] for name, _ in columns]
    widths = [max(12, len(name)) + 2 for name in names]
    lines = [" " * 38 + "".join(name.rjust(w) for name, w in zip(names, widths, strict=True))]
    for key, title, factor, unit in TABLE:
        metrics = [metric_of(values, key) for _, values in columns]
        if all(m is None for m in metrics):
            continue
        cells = [describe(m, factor) for m in metrics]
        lines.append(f"  {title} {f'[{unit}]' if unit else ''}".ljust(38)
                     + "".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)))
    for sequence in sequences:
        if placed := sequence.get("rig", {}).get("calibration"):
            lines += ["", f"  cameras of {sequence['name']}, placed from the people they see:",
                      *(f"    {line}" for line in placed)]
    frames = sum(s["counts"]["frames"] for s in sequences)
    lines += ["", f"  {frames} frames of {len(sequences)} sequence(s); alignments, counts and all other metrics are in "
                  "metrics.json"]
    return "\n".join(lines)


def metric_of(values: Mapping[str, Any], key: str) -> Metric | None:
    """One metric of a JSON object of metrics; None if it was not measured."""
    return from_json(values[key]) if key in values else None


def describe(metric: Metric | None, factor: float = 1.0) -> str:
    """Three digits, or why there is no value; what is rounding of nothing is 0."""
    if metric is None:
        return "-"
    if metric.value is None:
        return metric.status
    return f"{metric.value * factor:.3g}" if abs(metric.value * factor) > 1e-6 else "0"
