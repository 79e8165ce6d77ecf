"""One HTML page from one or many metrics.json: no scripts, no requests, pictures and charts inside."""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from human_scene_ros.report import charts
from human_scene_ros.report.charts import Series
from human_scene_ros.report.published import PROTOCOLS, SOURCES, Protocol

MAX_OPEN_SEQUENCES = 2
"""Details of so many sequences are unfolded; a page of fifty would be a wall."""

POINTS_PER_LINE = 400
_PEOPLE_EDGES_M = (0.0, 1.5, 2.5, 3.5, 4.5, 6.0, 8.0, 11.0, 100.0)

TILES = (
    ("head_recall", "people found", 100.0, "%"), ("head_precision", "detections that are people", 100.0, "%"),
    ("idf1", "IDF1, who stays who", 100.0, "%"), ("pa_mpjpe_mm", "PA-MPJPE, the pose alone", 1.0, "mm"),
    ("mpjpe_mm", "MPJPE, hips aligned", 1.0, "mm"), ("pelvis_rel_error", "error of the distance to people", 100.0, "%"),
    ("wa_mpjpe_mm", "WA-MPJPE, motion in the world", 1.0, "mm"), ("ate_rel", "camera ATE over path length", 100.0, "%"),
    ("depth_absrel", "depth AbsRel, metric", 1.0, ""), ("depth_absrel_median", "depth AbsRel, median-scaled", 1.0, ""),
    ("person_recall", "people of the rig found", 100.0, "%"), ("rig_w_mpjpe_m", "W-MPJPE of the rig", 1.0, "m"),
    ("rig_ga_mpjpe_m", "GA-MPJPE of the rig", 1.0, "m"), ("rig_pa_mpjpe_m", "PA-MPJPE of the rig", 1.0, "m"),
    ("rig_te_m", "TE, places of the cameras", 1.0, "m"), ("rig_ae_deg", "AE, angles between cameras", 1.0, "deg"),
    ("latency_p50_ms", "latency, median", 1.0, "ms"), ("latency_p95_ms", "latency, 95th percentile", 1.0, "ms"),
)
COMPARED = (
    ("head_recall", "found", 100.0, "%"), ("head_precision", "precision", 100.0, "%"), ("idf1", "IDF1", 100.0, "%"),
    ("pa_mpjpe_mm", "PA-MPJPE", 1.0, "mm"), ("mpjpe_mm", "MPJPE", 1.0, "mm"), ("wa_mpjpe_mm", "WA-MPJPE", 1.0, "mm"),
    ("w_mpjpe_mm", "W-MPJPE", 1.0, "mm"), ("ate_se3_m", "ATE", 100.0, "cm"), ("depth_absrel", "AbsRel", 1.0, ""),
    ("depth_delta1", "delta1", 100.0, "%"), ("person_recall", "found", 100.0, "%"),
    ("person_precision", "precision", 100.0, "%"), ("rig_w_mpjpe_m", "W-MPJPE", 1.0, "m"),
    ("rig_ga_mpjpe_m", "GA-MPJPE", 1.0, "m"), ("rig_pa_mpjpe_m", "PA-MPJPE", 1.0, "m"), ("rig_te_m", "TE", 1.0, "m"),
    ("rig_s_te_m", "s-TE", 1.0, "m"), ("rig_ae_deg", "AE", 1.0, "deg"), ("rig_rra_10deg", "RRA@10", 1.0, ""),
    ("rig_cca_10pct", "CCA@10", 1.0, ""), ("latency_p95_ms", "latency p95", 1.0, "ms"),
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One metrics.json.

    Args:
        name: For headings.
        content: The parsed file.
        folder: Where its files lie.
    """

    name: str
    content: Mapping[str, Any]
    folder: Path

    @property
    def sequences(self) -> Sequence[Mapping[str, Any]]:
        """All sequences of the file."""
        return list(self.content["sequences"])

    @property
    def pooled(self) -> Mapping[str, Any]:
        """Averages over all frames."""
        return dict(self.content["totals"]["pooled_frames"])


def make_page(evaluations: Sequence[Evaluation], title: str = "How good is it?") -> str:
    """The whole page.

    Args:
        evaluations: At least one.
        title: Of the page.
    """
    sections = [
        ("results", "Results", _results(evaluations)),
        ("published", "Beside published systems", _published(evaluations)),
        ("time", "Error over time", _per_sequence(evaluations, _over_time)),
        ("joints", "Error per joint and distance", _joints_and_distance(evaluations)),
        ("paths", "Trajectories from above", _per_sequence(evaluations, _paths)),
        ("depth", "Depth", _per_sequence(evaluations, _depth)),
        ("worst", "Worst frames", _per_sequence(evaluations, _worst)),
        ("latency", "Latency", _latency(evaluations)),
        ("missing", "What was not measured", _not_measured(evaluations)),
        ("all", "All numbers", _everything(evaluations)),
        ("origin", "Where the numbers come from", _origin(evaluations)),
    ]
    body = "".join(f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(heading)}</h2>{html}</section>'
                   for key, heading, html in sections)
    links = "".join(f'<a href="#{key}">{escape(heading)}</a>' for key, heading, _ in sections)
    style = resources.files("human_scene_ros.report").joinpath("data/style.css").read_text(encoding="utf-8")
    frames = sum(s["counts"]["frames"] for e in evaluations for s in e.sequences)
    count = sum(len(e.sequences) for e in evaluations)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{style}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><p class="soft">{count} {_plural(count, "sequence")}, {frames:,} frames. '
        f'{escape(_weights(evaluations))}</p><nav aria-label="Sections">{links}</nav></header>'
        f'<main>{body}</main><footer>Made by <code>human-scene report</code>; this file needs nothing else.'
        '</footer></body></html>\n')


# --- results -----------------------------------------------------------------------------------------------------

def _results(evaluations: Sequence[Evaluation]) -> str:
    parts = []
    for evaluation in evaluations:
        if len(evaluations) > 1:
            parts.append(f"<h3>{escape(evaluation.name)}</h3>")
        tiles = []
        for key, label, factor, unit in TILES:
            metric = evaluation.pooled.get(key)
            if metric is None or metric["value"] is None:
                continue
            value = _digits(metric["value"] * factor)
            if metric["alignment"] not in ("none", "metric"):
                label += f" ({metric['alignment']})" if "matching" not in metric["alignment"] else ""
            tiles.append(f'<div class="tile"><b>{value} <small>{unit}</small></b><span>{escape(label)}</span></div>')
        parts.append(f'<div class="tiles">{"".join(tiles)}</div>')
        columns = [c for c in COMPARED if any(c[0] in s["metrics"] for s in evaluation.sequences)]
        rows = [("all sequences, pooled", "ours", evaluation.pooled)] if len(evaluation.sequences) > 1 else []
        rows += [(s["name"], "", s["metrics"]) for s in evaluation.sequences]
        head = "".join(f"<th scope=\"col\">{escape(n)}{f' [{u}]' if u else ''}</th>" for _, n, _, u in columns)
        body = "".join(
            f'<tr class="{style}"><th scope="row">{escape(name)}</th>'
            + "".join(_cell(values.get(key), factor) for key, _, factor, _ in columns) + "</tr>"
            for name, style, values in rows)
        parts.append(_table(f"Results of {evaluation.name} by sequence", f'<th scope="col">sequence</th>{head}', body))
    parts.append('<p class="note">Pooled values are means over all frames, people or pixels of all sequences; camera '
                 "errors are the mean over sequences. A word instead of a number says why there is none.</p>")
    return "".join(parts)


def _cell(metric: Mapping[str, Any] | None, factor: float = 1.0) -> str:
    if metric is None:
        return '<td class="status">-</td>'
    if metric["value"] is None:
        return f'<td class="status">{escape(metric["status"])}</td>'
    return f'<td>{_digits(metric["value"] * factor)}</td>'


# --- published ---------------------------------------------------------------------------------------------------

def _published(evaluations: Sequence[Evaluation]) -> str:
    intro = ("<p>Rows of this package are marked. A row in italics was measured on other data than the table's and "
             "must not be compared; it stands there so that nobody has to look for it. The best published value of "
             "each column is underlined.</p>")
    sources = "".join(f"<li>[{key}] {escape(text)}</li>" for key, text in sorted(SOURCES.items()))
    tables = []
    for k, protocol in enumerate(PROTOCOLS):
        measured = any(_on_dataset(s, protocol) for e in evaluations for s in e.sequences)
        opened = " open" if k == 0 or (measured and "*" not in protocol.datasets) else ""
        tables.append(f"<details{opened}><summary>{escape(protocol.title)}</summary>"
                      f"{_protocol(protocol, evaluations)}</details>")
    return f'{intro}{"".join(tables)}<h3>Sources</h3><ul>{sources}</ul>'


def _protocol(protocol: Protocol, evaluations: Sequence[Evaluation]) -> str:
    best, digits = [], []
    for k, lower in enumerate(protocol.lower_is_better):
        numbers = [row[1][k] for row in protocol.rows if isinstance(row[1][k], (int, float))]
        best.append((min if lower else max)(numbers) if len(numbers) > 1 else None)  # type: ignore[type-var]
        digits.append(max((len(str(float(n)).split(".")[1].rstrip("0")) for n in numbers), default=0))  # type: ignore[arg-type]
    rows = []
    for name, values, source in protocol.rows:
        shown = ["-" if v is None else v if isinstance(v, str) else f"{v:.{digits[k]}f}" for k, v in enumerate(values)]
        cells = "".join(f'<td><span class="best">{text}</span></td>' if best[k] is not None and values[k] == best[k]
                        else f"<td>{text}</td>" for k, text in enumerate(shown))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}<td class="left">[{escape(source)}]</td></tr>')
    ours = [_our_row(protocol, evaluation) for evaluation in evaluations] if any(protocol.ours) else []
    ours += [_our_row(protocol, evaluation, best_match=True) for evaluation in evaluations
             if any(key in evaluation.pooled for key in protocol.ours_best_match)
             and any(_on_dataset(s, protocol) for s in evaluation.sequences)]
    if not any(protocol.ours):
        columns = len(protocol.columns)
        ours = [f'<tr class="other"><th scope="row">this package</th><td class="left" colspan="{columns + 1}">'
                "not measured</td></tr>"]
    head = '<th scope="col">method</th>' + "".join(f'<th scope="col">{escape(c)}</th>' for c in protocol.columns)
    notes = "".join(f"<li>{_with_code(c)}</li>" for c in protocol.caveats)
    return _table(protocol.title, head + '<th scope="col" class="left">source</th>', "".join([*ours, *rows])) + (
        f'<ul class="note">{notes}</ul>' if notes else "")


def _our_row(protocol: Protocol, evaluation: Evaluation, best_match: bool = False) -> str:
    comparable = [s for s in evaluation.sequences if _on_dataset(s, protocol)]
    chosen = comparable or evaluation.sequences
    cells = []
    for key, factor in zip(protocol.ours_best_match if best_match else protocol.ours, protocol.factors, strict=True):
        if key == "fps":
            value = _mean([(s.get("system", {}).get("fps"), s["counts"]["frames"]) for s in chosen])
        elif not key:
            value = None
        elif len(chosen) == len(evaluation.sequences):
            value = evaluation.pooled.get(key, {}).get("value")
        else:
            value = _mean([(s["metrics"].get(key, {}).get("value"), s["metrics"].get(key, {}).get("count", 0))
                           for s in chosen])
        cells.append('<td class="status">-</td>' if value is None else f"<td>{_digits(value * factor)}</td>")
    where = "measured here" if comparable else "other data, not comparable"
    style = "ours" if comparable else "other"
    return (f'<tr class="{style}"><th scope="row">this package, {escape(_short_weights(evaluation))}, on '
            f'{escape(evaluation.name)}{", best match of each frame" if best_match else ""}</th>{"".join(cells)}'
            f'<td class="left">{where}</td></tr>')


def _on_dataset(sequence: Mapping[str, Any], protocol: Protocol) -> bool:
    names = [n for n in str(sequence.get("dataset") or "").lower().replace("-", "").replace("_", "").split("+") if n]
    return "*" in protocol.datasets or any(n.startswith(d) for n in names for d in protocol.datasets)


# --- curves ------------------------------------------------------------------------------------------------------

def _per_sequence(evaluations: Sequence[Evaluation], draw: Callable[[Evaluation, Mapping[str, Any]], str]) -> str:
    drawn = [(e, s, html) for e in evaluations for s in e.sequences if (html := draw(e, s))]
    if not drawn:
        return '<p class="none">Nothing of this kind was measured.</p>'
    parts = []
    for k, (evaluation, sequence, html) in enumerate(drawn):
        name = sequence["name"] if len(evaluations) == 1 else f"{evaluation.name}: {sequence['name']}"
        if len(drawn) == 1:
            parts.append(html)
        else:
            opened = " open" if k < MAX_OPEN_SEQUENCES else ""
            parts.append(f"<details{opened}><summary>{escape(name)}</summary>{html}</details>")
    return "".join(parts)


def _over_time(evaluation: Evaluation, sequence: Mapping[str, Any]) -> str:
    frames = _columns(evaluation, sequence, "frames")
    time_s = _time_s(frames)
    if not time_s:
        return ""
    drawn = []
    for title, y_label, keys in (
            ("Pose error", "mm", (("mpjpe_mm", "MPJPE, hips aligned"), ("pa_mpjpe_mm", "PA-MPJPE"))),
            ("Camera error", "mm", (("camera_error_mm", "position after SE(3)"),)),
            ("People of the rig", "m", (("rig_w_mpjpe_m", "W-MPJPE"), ("rig_ga_mpjpe_m", "GA-MPJPE"),
                                        ("rig_pa_mpjpe_m", "PA-MPJPE"))),
            ("Cameras of the rig", "m", (("rig_te_m", "TE"), ("rig_s_te_m", "s-TE"))),
            ("Depth error", "AbsRel", (("depth_absrel", "AbsRel, metric"),)),
            ("People", "people", (("people_true", "to be found"), ("matched", "found")))):
        series = [Series(label, *_thinned(time_s, frames[key])) for key, label in keys if _any(frames.get(key))]
        if series and not (title == "People" and not any(frames["people_true"])):
            unit = f" {y_label}" if y_label in ("mm", "m") else ""
            last = [f"{s.name} {_digits(_mean_of(s.y))}{unit}" for s in series]
            drawn.append(charts.line_chart(
                series, title=title, x_label="time [s]", y_label=y_label,
                describe=f"{sequence['name']}, {time_s[-1]:.3g} s; mean {', '.join(last)}."))
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _joints_and_distance(evaluations: Sequence[Evaluation]) -> str:
    drawn = []
    for evaluation in evaluations:
        suffix = f", {evaluation.name}" if len(evaluations) > 1 else ""
        found = [s["joints"] for s in evaluation.sequences if s["joints"].get("count") and s["joints"]["count"][0]]
        if found:
            names = [n.replace("_", " ") for n in found[0]["joint"]]
            series = [Series(label, range(len(names)), [
                _mean([(j[key][k], j["count"][k]) for j in found]) for k in range(len(names))])
                for key, label in (("mpjpe_mm", "hips aligned"), ("ga_mpjpe_mm", "Sim(3) of all people"),
                                   ("pa_mpjpe_mm", "Sim(3) of each person")) if all(key in j for j in found)]
            worst = max(zip((v or 0.0 for v in series[0].y), names, strict=True))
            drawn.append(charts.bar_chart(names, series, title=f"Mean error per joint{suffix}", y_label="mm",
                                          describe=f"Largest with {series[0].name}: {worst[1]}, {worst[0]:.3g} mm."))
        drawn += _by_distance(evaluation, suffix)
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else (
        '<p class="none">No people were measured.</p>')


def _by_distance(evaluation: Evaluation, suffix: str) -> list[str]:
    rows: dict[str, list[float | None]] = {}
    for sequence in evaluation.sequences:
        for key, column in _columns(evaluation, sequence, "people").items():
            rows.setdefault(key, []).extend(column)
    drawn = []
    if rows.get("distance_m"):
        centres: list[float] = []
        values: dict[str, list[float | None]] = {k: [] for k in ("mpjpe_mm", "pa_mpjpe_mm", "root_error_mm", "found")}
        for low, high in zip(_PEOPLE_EDGES_M[:-1], _PEOPLE_EDGES_M[1:], strict=True):
            inside = [k for k, d in enumerate(rows["distance_m"]) if d is not None and low <= d < high]
            if len(inside) < 10:
                continue
            centres.append(_mean_of([rows["distance_m"][k] for k in inside]))
            for key in ("mpjpe_mm", "pa_mpjpe_mm", "root_error_mm"):
                values[key].append(_mean([(rows[key][k], 1.0) for k in inside]))
            values["found"].append(100.0 * sum(rows["track_id"][k] is not None for k in inside) / len(inside))
        if centres:
            span = f"People from {centres[0]:.2g} to {centres[-1]:.2g} m away."
            drawn.append(charts.line_chart(
                [Series(label, centres, values[key]) for key, label in (
                    ("mpjpe_mm", "MPJPE"), ("pa_mpjpe_mm", "PA-MPJPE"), ("root_error_mm", "root error"))],
                title=f"Error by distance{suffix}", x_label="distance [m]", y_label="mm", describe=span))
            drawn.append(charts.line_chart([Series("found", centres, values["found"])], x_label="distance [m]",
                                           title=f"People found by distance{suffix}", y_label="%", describe=span))
    bins: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for sequence in evaluation.sequences:
        table = sequence["depth_by_distance"]
        for low, high, value, count in zip(*(table.get(k, []) for k in ("from_m", "to_m", "abs_rel", "count")),
                                           strict=True):
            bins.setdefault((low, high), []).append((value, count))
    if bins:
        edges = sorted(bins)
        drawn.append(charts.line_chart(
            [Series("AbsRel", [0.5 * (a + min(b, 20.0)) for a, b in edges], [_mean(bins[e]) for e in edges])],
            title=f"Depth error by distance{suffix}", x_label="true depth [m]", y_label="AbsRel, metric",
            describe=f"Pixels from {edges[0][0]:g} to {edges[-1][1]:g} m; the last bin is drawn where it begins."))
    return drawn


def _paths(evaluation: Evaluation, sequence: Mapping[str, Any]) -> str:
    frames, people = _columns(evaluation, sequence, "frames"), _columns(evaluation, sequence, "people")
    series = []
    for side, name in (("true", "camera, true"), ("estimate", "camera, estimated")):
        if _any(frames.get(f"{side}_x_m")):
            x, y = frames[f"{side}_x_m"], frames[f"{side}_y_m"]
            step = max(1, len(x) // 1500)
            series.append(Series(name, x[::step], y[::step]))  # type: ignore[arg-type]
    for side, name in (("true", "people, true"), ("estimate", "people, estimated")):
        if _any(people.get(f"{side}_x_m")):
            x, y = people[f"{side}_x_m"], people[f"{side}_y_m"]
            step = max(1, len(x) // 700)
            series.append(Series(name, x[::step], y[::step], points=True))  # type: ignore[arg-type]
    if not series:
        return ""
    length = sequence["metrics"].get("path_length_m", {}).get("value")
    ate = sequence["metrics"].get("ate_se3_m", {}).get("value")
    text = f"{sequence['name']}, the estimated world moved onto the true one by SE(3) on the cameras."
    if length is not None and ate is not None:
        text += f" The camera's path is {_digits(length)} m long, its ATE {_digits(100 * ate)} cm."
    return f'<div class="charts">{charts.map_chart(series, title="From above", describe=text)}</div>'


# --- pictures ----------------------------------------------------------------------------------------------------

def _depth(evaluation: Evaluation, sequence: Mapping[str, Any]) -> str:
    picture = (sequence.get("pictures") or {}).get("depth")
    if not picture:
        return ""
    value = sequence["metrics"].get("depth_absrel", {}).get("value")
    text = (f"Frame {picture['frame']} of {sequence['name']}: image, estimated depth, true depth; one colour scale "
            f"from {picture['near_m']:.2g} m (light) to {picture['far_m']:.2g} m (dark)."
            + (f" AbsRel of the sequence: {value:.3g}." if value is not None else ""))
    return _image(evaluation.folder / picture["file"], text)


def _worst(evaluation: Evaluation, sequence: Mapping[str, Any]) -> str:
    frames = _columns(evaluation, sequence, "frames")
    figures = []
    for picture in (sequence.get("pictures") or {}).get("worst", []):
        k = picture["frame"]
        facts = [f"{int(frames['matched'][k] or 0)} of {int(frames['people_true'][k] or 0)} people found"]
        false = int((frames["detections"][k] or 0) - (frames["matched"][k] or 0))
        if false:
            facts.append(f"{false} {_plural(false, 'detection')} of nobody")
        for key, label, unit, factor in (("mpjpe_mm", "MPJPE", "mm", 1.0),
                                         ("rig_w_mpjpe_pose_m", "W-MPJPE by camera poses", "mm", 1e3)):
            error = frames[key][k] if key in frames else None
            if error is not None:
                facts.append(f"{label} {factor * error:.0f} {unit}")
        figures.append(_image(evaluation.folder / picture["file"], f"Frame {k}: {', '.join(facts)}. "
                              "True skeletons white, estimated ones orange."))
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _image(path: Path, text: str) -> str:
    if not path.is_file():
        return f'<p class="none">{escape(path.name)} is not there any more. {escape(text)}</p>'
    kind = "png" if path.suffix == ".png" else "jpeg"
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (f'<figure><img alt="{escape(text)}" src="data:image/{kind};base64,{data}">'
            f"<figcaption>{escape(text)}</figcaption></figure>")


# --- the rest ----------------------------------------------------------------------------------------------------

def _latency(evaluations: Sequence[Evaluation]) -> str:
    drawn = []
    for evaluation in evaluations:
        values = [v for s in evaluation.sequences for v in _columns(evaluation, s, "frames").get("latency_ms", [])
                  if v is not None]
        if not values:
            continue
        ordered = sorted(values)
        marks = [(f"p{p}", ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))]) for p in (50, 95, 99)]
        what = ("from the stamp of the image to the result, through ROS" if evaluation.content["mode"] == "live"
                else "of one step of the stream, image in memory to estimate")
        dropped = sum(int(s.get("dropped") or 0) for s in evaluation.sequences)
        drawn.append(charts.histogram(
            values, title=f"Latency, {evaluation.name}", x_label="ms", marks=marks,
            describe=f"Time {what}; {len(values)} frames, {dropped} dropped. The longest half percent is cut off."))
        stages = {k.removeprefix("stage_").removesuffix("_mean_ms"): m["value"] for k, m in evaluation.pooled.items()
                  if k.startswith("stage_") and m["value"] is not None}
        if stages:
            drawn.append(charts.bar_chart(list(stages), [Series("mean", range(len(stages)), list(stages.values()))],
                                          title=f"Stages of a step, {evaluation.name}", y_label="ms per frame, mean",
                                          describe=f"Longest: {max(stages, key=lambda s: stages[s])}."))
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else (
        '<p class="none">These results say nothing about time.</p>')


def _not_measured(evaluations: Sequence[Evaluation]) -> str:
    notes = dict.fromkeys(note for e in evaluations for note in e.content.get("not_measured", []))
    undefined = dict.fromkeys(f"{key}: {m['status']}" for e in evaluations for key, m in e.pooled.items()
                              if m["value"] is None)
    datasets = sorted({str(s["dataset"]) for e in evaluations for s in e.sequences if s.get("dataset")})
    unplaced = [f"{s['name']}, {line}" for e in evaluations for s in e.sequences
                for line in s.get("rig", {}).get("calibration", []) if "no pose" in line]
    items = [*notes, *undefined, *unplaced]
    items.append("published protocols on " + ", ".join(sorted({p.title.split(":")[0] for p in PROTOCOLS if p.datasets
                 and "*" not in p.datasets and not any(_on_dataset(s, p) for e in evaluations for s in e.sequences)}))
                 + (f" (data evaluated: {', '.join(datasets)})" if datasets else
                    ": no recording of them was evaluated"))
    return "<ul>" + "".join(f"<li>{_with_code(item)}</li>" for item in items) + "</ul>"


def _everything(evaluations: Sequence[Evaluation]) -> str:
    parts = []
    for evaluation in evaluations:
        log = evaluation.content["totals"].get("human3r_log", {})
        rows = []
        for key, metric in evaluation.pooled.items():
            other = log.get(key, {}).get("value")
            count = f"{metric['count']:.10g}" if metric["pooling"] == "weighted" else metric["pooling"]
            rows.append(f'<tr><th scope="row">{escape(key)}</th>{_precise(metric)}'
                        f'<td>{"" if other is None else f"{other:.6g}"}</td><td>{escape(count)}</td>'
                        f'<td class="left">{escape(metric["alignment"])}</td></tr>')
        head = "".join(f'<th scope="col"{c}>{t}</th>' for t, c in (
            ("metric", ""), ("value", ""), ("as in Human3R's log", ""), ("weight", ""), ("alignment", ' class="left"')))
        parts.append(f"<details><summary>{escape(evaluation.name)}: {len(rows)} metrics</summary>"
                     f"{_table(f'All metrics of {evaluation.name}', head, ''.join(rows))}</details>")
    return "".join(parts)


def _precise(metric: Mapping[str, Any]) -> str:
    if metric["value"] is None:
        return f'<td class="status">{escape(metric["status"])}</td>'
    return f"<td>{metric['value']:.6g}</td>"


def _origin(evaluations: Sequence[Evaluation]) -> str:
    parts = []
    for evaluation in evaluations:
        content = evaluation.content
        git, hardware, weights = content["git"], content["hardware"], content["weights"] or {}
        commit = git["commit"] or "not a checkout"
        facts = {
            "mode": content["mode"], "made": content["created"],
            "commit": f"{commit}{' with uncommitted changes' if git['dirty'] else ''}",
            "code": f"SHA-256 {content['code_sha256'][:16]} of the modules that decide the numbers",
            "weights": f"{weights.get('name', 'none')}, SHA-256 {weights.get('sha256', '-')[:16]}",
            "hardware": f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB"
                        + (f", {hardware['gpu']}" if hardware["gpu"] else ", no GPU"),
            "software": ", ".join(f"{k} {v}" for k, v in content["software"].items()),
            "engine": content.get("engine", ""),
            "parameters": ", ".join(f"{k}={v}" for k, v in content["parameters"].items() if v not in ("", False, None)),
        }
        rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items() if v)
        parts.append((f"<h3>{escape(evaluation.name)}</h3>" if len(evaluations) > 1 else "")
                     + f'<dl class="facts">{rows}</dl>')
    return "".join(parts)


# --- parts -------------------------------------------------------------------------------------------------------

def _table(name: str, head: str, body: str) -> str:
    """A table that scrolls sideways by itself where the screen is narrow; reachable by keyboard."""
    return (f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0"><table><thead><tr>{head}</tr>'
            f"</thead><tbody>{body}</tbody></table></div>")


def _columns(evaluation: Evaluation, sequence: Mapping[str, Any], table: str) -> Mapping[str, list[float | None]]:
    file = sequence["files"].get(table)
    return _read_csv(evaluation.folder / file) if file else {}


@functools.lru_cache(maxsize=256)
def _read_csv(path: Path) -> Mapping[str, list[float | None]]:
    """Columns of numbers; empty cells are None. No rows where the file is gone."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return {name: [float(row[k]) if row[k] else None for row in rows[1:]] for k, name in enumerate(rows[0])}


def _time_s(frames: Mapping[str, Sequence[float | None]]) -> list[float]:
    stamps = [v for v in frames.get("stamp_ns", []) if v is not None]
    return [1e-9 * (v - stamps[0]) for v in stamps] if len(stamps) > 1 else []


def _thinned(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """Means over equal groups of frames, so that a long sequence is a line and no carpet.

    Where most frames have no value, as with depth of every third frame, those are left out and no gaps.
    """
    if 2 * sum(v is not None for v in y) < len(y):
        x, y = [t for t, v in zip(x, y, strict=True) if v is not None], [v for v in y if v is not None]
    group = max(1, math.ceil(len(x) / POINTS_PER_LINE))
    starts = range(0, len(x), group)
    return ([_mean_of(x[k:k + group]) for k in starts],
            [_mean([(v, 1.0) for v in y[k:k + group]]) for k in starts])


def _mean(weighted: Iterable[tuple[float | None, float]]) -> float | None:
    known = [(float(v), float(w)) for v, w in weighted if v is not None and w]
    total = sum(w for _, w in known)
    return sum(v * w for v, w in known) / total if total else None


def _mean_of(values: Iterable[float | None]) -> float:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan


def _any(column: Sequence[float | None] | None) -> bool:
    return column is not None and any(v is not None for v in column)


def _digits(value: float) -> str:
    """Three digits, never with an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1e-4 else "0"


def _with_code(text: str) -> str:
    """Escaped text; what stands between backticks is code."""
    return "".join(f"<code>{escape(part)}</code>" if k % 2 else escape(part) for k, part in enumerate(text.split("`")))


def _plural(count: int, word: str) -> str:
    return word if count == 1 else word + "s"


def _short_weights(evaluation: Evaluation) -> str:
    weights = evaluation.content["weights"]
    return weights["name"] if weights else "given results"


def _weights(evaluations: Sequence[Evaluation]) -> str:
    found = dict.fromkeys(f"{w['name']} {w['sha256'][:12]}" for e in evaluations if (w := e.content["weights"]))
    notes = dict.fromkeys(w["note"] for e in evaluations if (w := e.content["weights"]) and w["note"])
    return f"Weights: {', '.join(found)}. {' '.join(notes)}" if found else "Results were given, no weights ran."
