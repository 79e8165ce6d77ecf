"""The numbers of a README: a table between two marks, written by `human-scene report --readme`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from human_scene_ros.errors import ConfigError
from human_scene_ros.report.page import Evaluation

BEGIN = "<!-- numbers: written by `make numbers`, not by hand -->"
END = "<!-- end of numbers -->"

COLUMNS = (
    ("head_recall", "people found", 100.0, " %"), ("head_precision", "precision", 100.0, " %"),
    ("idf1", "IDF1", 100.0, " %"), ("pa_mpjpe_mm", "PA-MPJPE", 1.0, " mm"), ("mpjpe_mm", "MPJPE", 1.0, " mm"),
    ("wa_mpjpe_mm", "WA-MPJPE", 1.0, " mm"), ("pelvis_rel_error", "distance", 100.0, " %"),
    ("ate_rel", "camera ATE / path", 100.0, " %"), ("depth_absrel", "depth AbsRel", 1.0, ""),
    ("depth_absrel_median", "median-scaled", 1.0, ""),
)


RIG_COLUMNS = (
    ("person_recall", "people found", 100.0, " %"), ("person_precision", "precision", 100.0, " %"),
    ("idf1", "IDF1", 100.0, " %"), ("rig_w_mpjpe_m", "W-MPJPE", 1.0, " m"), ("rig_ga_mpjpe_m", "GA-MPJPE", 1.0, " m"),
    ("rig_pa_mpjpe_m", "PA-MPJPE", 1.0, " m"), ("wa_mpjpe_mm", "WA-MPJPE", 1.0, " mm"),
    ("rig_te_m", "camera TE", 1.0, " m"), ("rig_ae_deg", "camera AE", 1.0, " deg"),
)
"""Of recordings whose cameras were evaluated together."""


def numbers_block(evaluations: Sequence[Evaluation]) -> str:
    """One table with a row per suite or data set, another one for rigs, and where they come from."""
    parts = []
    for columns, rig in ((COLUMNS, False), (RIG_COLUMNS, True)):
        rows = [row for evaluation in evaluations for row in _rows(evaluation, columns, rig)]
        if rows:
            parts.append("\n".join([f"|{' all cameras together ' if rig else ' '}| frames | "
                                    f"{' | '.join(name for _, name, _, _ in columns)} |",
                                    f"|---|---{'|---' * len(columns)}|", *rows]))
    origins = dict.fromkeys(_origin(e) for e in evaluations)
    return "\n\n".join([*parts, "\n".join(origins)])


def _rows(evaluation: Evaluation, columns: Sequence[tuple[str, str, float, str]], rig: bool) -> list[str]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for sequence in evaluation.sequences:
        if ("rig" in sequence) == rig:
            name = str(sequence.get("dataset") or sequence["name"]).removeprefix("synthetic-")
            groups.setdefault(name, []).append(sequence)
    lines = []
    for name, sequences in groups.items():
        frames = sum(s["counts"]["frames"] for s in sequences)
        cells = [cell(_pooled(sequences, key), factor, unit) for key, _, factor, unit in columns]
        placing = f", cameras {sequences[0]['rig']['placing']}" if rig else ""
        lines.append(f"| {name}{placing} | {frames} | {' | '.join(cells)} |")
    return lines


def replace_block(text: str, block: str, where: str = "the file") -> str:
    """`text` with what stands between the marks replaced.

    Raises:
        ConfigError: The marks are not there once each, in order.
    """
    begin, end = text.find(BEGIN), text.find(END)
    if text.count(BEGIN) != 1 or text.count(END) != 1 or end < begin:
        raise ConfigError(f"{where} lacks the marks of the numbers; expected one line {BEGIN!r} and, below it, "
                          f"one {END!r}")
    return f"{text[:begin + len(BEGIN)]}\n\n{block}\n\n{text[end:]}"


def _pooled(sequences: Sequence[Mapping[str, Any]], key: str) -> float | None:
    metrics = [s["metrics"][key] for s in sequences if s["metrics"].get(key, {}).get("value") is not None]
    if not metrics:
        return None
    weights = [m["count"] if m["pooling"] == "weighted" else 1.0 for m in metrics]
    return float(sum(m["value"] * w for m, w in zip(metrics, weights, strict=True)) / sum(weights))


def cell(value: float | None, factor: float, unit: str) -> str:
    """Two digits, and never an exponent: 99.6 % is 100 %."""
    if value is None:
        return "-"
    scaled = value * factor
    return f"{scaled:.0f}{unit}" if abs(scaled) >= 10 else f"{scaled:.2g}{unit}" if unit else f"{scaled:.2f}"


def _origin(evaluation: Evaluation) -> str:
    content = evaluation.content
    weights, git = content["weights"], content["git"]
    who = f"`{weights['name']}` {weights['sha256'][:12]}" if weights else "given results"
    commit = f"commit {git['commit'][:10]}" if git["commit"] else "no commit"
    changed = ", uncommitted changes" if git["dirty"] else ""
    return (f"Weights {who}, {commit}{changed}, {content['created'][:10]}, {content['hardware']['cpu']}; MPJPE with "
            "the hips aligned, means over all frames of a row.")
