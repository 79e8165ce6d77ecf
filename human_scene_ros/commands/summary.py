"""What a run says about itself in the end: the table on the terminal and the line under the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ERRORS = (
    ("head_recall", "people found", "", 100.0, " %"),
    ("head_precision", "detections that are people", "", 100.0, " %"),
    ("pa_mpjpe_mm", "PA-MPJPE (pose alone)", "PA-MPJPE", 1.0, " mm"),
    ("mpjpe_mm", "MPJPE (pelvis aligned)", "MPJPE", 1.0, " mm"),
    ("wa_mpjpe_mm", "WA-MPJPE (motion in the world)", "WA-MPJPE", 1.0, " mm"),
    ("pelvis_rel_error", "distance to people", "", 100.0, " %"),
    ("ate_m", "camera ATE", "camera ATE", 100.0, " cm"),
    ("depth_absrel", "depth AbsRel", "depth AbsRel", 1.0, ""),
    ("depth_absrel_median", "depth AbsRel, median-scaled", "", 1.0, ""),
)
"""Key, name in the table, short name under the picture ("" = only in the table), factor, unit."""


def format_value(value: float | None, factor: float = 1.0, unit: str = "") -> str:
    """Three digits are what such errors are worth."""
    if value is None:
        return "undefined"
    scaled = value * factor
    return f"{scaled:.0f}{unit}" if abs(scaled) >= 1000.0 else f"{scaled:.3g}{unit}"


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Label -> value for the line under the overview."""
    found = {"frames": str(summary["frames_processed"]), "people": str(summary["people"]),
             "speed": f"{summary['fps']:.1f} fps", "latency p95": f"{summary['latency_p95_ms']:.0f} ms"}
    errors = summary.get("errors") or {}
    for key, _, short, factor, unit in ERRORS:
        if short and errors.get(key) is not None:
            found[short] = format_value(errors[key], factor, unit)
    return found


def subtitle(summary: Mapping[str, Any]) -> str:
    """Which weights ran."""
    weights = summary["weights"]
    return f"weights: {weights['name']} {weights['sha256'][:12]}"


def table(summary: Mapping[str, Any]) -> str:
    """The text that ends a run."""
    rows = [("frames in / processed / dropped / rejected",
             " / ".join(str(summary[f"frames_{kind}"]) for kind in ("in", "processed", "dropped", "rejected"))),
            ("speed", f"{summary['fps']:.1f} frames per second"),
            ("latency p50 / p95", f"{summary['latency_p50_ms']:.0f} / {summary['latency_p95_ms']:.0f} ms"),
            ("people at once, at most", str(summary["people"]))]
    if "peak_rss_mib" in summary:
        rows.append(("peak memory, all nodes", f"{sum(summary['peak_rss_mib'].values()):.0f} MiB"))
    errors = summary.get("errors")
    if errors:
        rows += [(f"error: {name}" if unit != " %" else name, format_value(errors.get(key), factor, unit))
                 for key, name, _, factor, unit in ERRORS if key in errors]
    width = max(len(name) for name, _ in rows)
    weights = summary["weights"]
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    lines += ["", f"  weights: {weights['name']}, SHA-256 {weights['sha256'][:12]}",
              f"  {weights['note'] or 'the file says nothing about what these weights are worth'}"]
    if not errors:
        lines.append("  This input has no truth: nothing here says how good the result is. Look at the picture.")
    return "\n".join(lines)
