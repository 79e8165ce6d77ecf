"""Charts as inline SVG: sharp at any size, readable without JavaScript, described in words for who cannot see them.

Colours are CSS classes of the page (`s0`, `s1`, ... for series), so that light and dark pages both have contrast.
Series also differ in dash or marker, never by colour alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape
from typing import TypeGuard

WIDTH, HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 48
_MAP_HEIGHT = 400
_SERIES = 6
_NOTHING = 1e-6  # of any unit here; errors below it are rounding, and an axis of them would look like something


@dataclasses.dataclass(frozen=True)
class Series:
    """One line or set of points.

    Args:
        name: For the legend.
        x: Values.
        y: Values, None or NaN leave a gap.
        points: Draw markers instead of a line.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    points: bool = False


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values from `low` to `high`, about `count` of them, of steps 1, 2, 2.5 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low if math.isfinite(low) else 0.0]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A tick label: no more digits than it has."""
    return f"{value:g}" if abs(value) < 1e5 else f"{value:.0e}"


@dataclasses.dataclass
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]
    box: tuple[float, float, float, float]  # left, top, right, bottom, pixels

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        u = left + (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0) * (right - left)
        v = bottom - (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0) * (bottom - top)
        return u, v


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, describe: str,
               zero: bool = True, log: bool = False) -> str:
    """Lines over x, with legend.

    Args:
        series: At most six.
        title: Name of the figure, part of its description.
        x_label: With unit.
        y_label: With unit.
        describe: What there is to see, in a sentence, for screen readers.
        zero: The y axis begins at zero.
        log: The x axis is logarithmic (x must be positive).
    """
    points = [(_scaled(x, log), float(y)) for s in series for x, y in zip(s.x, s.y, strict=True) if _known(y)]
    if not points:
        return nothing(title)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low = 0.0 if zero and min(ys) >= 0 else min(ys)
    axes = _Axes(_padded(min(xs), max(xs), 0.0), _padded(low, max(ys), 0.06, low == 0.0),
                 (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
    parts = [_frame(axes, x_label, y_label, log)]
    for k, s in enumerate(series[:_SERIES]):
        if s.points:
            parts += [f'<circle class="s{k} dot" cx="{u:.1f}" cy="{v:.1f}" r="2.6"/>' for u, v in (
                axes.at(_scaled(x, log), float(y)) for x, y in zip(s.x, s.y, strict=True) if _known(y))]
        else:
            parts += [f'<path class="s{k} line" d="{d}"/>' for d in _paths(axes, s, log)]
    return _figure(parts, title, describe, series)


def bar_chart(labels: Sequence[str], series: Sequence[Series], *, title: str, y_label: str, describe: str) -> str:
    """Horizontal bars: one group per label, one bar per series, each with its value."""
    values = [float(y) for s in series for y in s.y if _known(y)]
    if not values:
        return nothing(title)
    thick, gap = (14, 7) if len(series) == 1 else (12, 8)
    group = thick * len(series) + gap
    left = 16 + 7.2 * max(len(label) for label in labels)
    height = _TOP + group * len(labels) + _BOTTOM
    axes = _Axes((0.0, max(values) * 1.12 or 1.0), (0.0, 1.0), (left, _TOP, WIDTH - _RIGHT, height - _BOTTOM))
    parts = []
    for tick in nice_ticks(*axes.x):
        u, _ = axes.at(tick, 0)
        parts.append(f'<line class="grid" x1="{u:.1f}" x2="{u:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
                     f'<text class="tick" x="{u:.1f}" y="{height - _BOTTOM + 17}" text-anchor="middle">{number(tick)}'
                     '</text>')
    for row, label in enumerate(labels):
        top = _TOP + row * group + gap / 2
        parts.append(f'<text class="tick" x="{left - 7:.1f}" y="{top + thick * len(series) / 2 + 4:.1f}" '
                     f'text-anchor="end">{escape(label)}</text>')
        for k, s in enumerate(series):
            value = s.y[row]
            if not _known(value):
                continue
            u, _ = axes.at(float(value), 0)
            parts.append(f'<rect class="s{k} bar" x="{left:.1f}" y="{top + k * thick:.1f}" '
                         f'width="{max(u - left, 0.5):.1f}" height="{thick - 1.5:.1f}"/>'
                         f'<text class="value" x="{u + 4:.1f}" y="{top + k * thick + thick - 2.4:.1f}">'
                         f'{float(value):.3g}</text>')
    parts.append(f'<text class="label" x="{(left + WIDTH - _RIGHT) / 2:.1f}" y="{height - 8}" text-anchor="middle">'
                 f'{escape(y_label)}</text>')
    return _figure(parts, title, describe, series, height, bars=True)


def histogram(values: Sequence[float], *, title: str, x_label: str, describe: str, bins: int = 40,
              marks: Sequence[tuple[str, float]] = ()) -> str:
    """Counts of `values` in equal bins up to their 99.5th percentile; `marks` are labelled vertical lines."""
    known = sorted(float(v) for v in values if _known(v))
    if not known:
        return nothing(title)
    top = max([known[min(len(known) - 1, int(0.995 * len(known)))], *(m for _, m in marks)]) or 1.0
    low = min(known[0], 0.0) if known[0] < 0.25 * top else known[0]
    width = (top - low) / bins or 1.0
    counts = [0] * bins
    for value in known:
        if value <= top:
            counts[min(bins - 1, int((value - low) / width))] += 1
    axes = _Axes((low, low + bins * width), (0.0, max(counts) * 1.15), (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
    parts = [_frame(axes, x_label, "frames", False)]
    for k, count in enumerate(counts):
        if count:
            u0, v0 = axes.at(low + k * width, count)
            u1, v1 = axes.at(low + (k + 1) * width, 0)
            parts.append(f'<rect class="s0 bar" x="{u0 + 0.5:.1f}" y="{v0:.1f}" width="{max(u1 - u0 - 1, 0.7):.1f}" '
                         f'height="{v1 - v0:.1f}"/>')
    for row, (name, value) in enumerate(marks):
        u, v = axes.at(value, 0)
        end = u > WIDTH - 150
        parts.append(f'<line class="mark" x1="{u:.1f}" x2="{u:.1f}" y1="{_TOP}" y2="{v:.1f}"/>'
                     f'<text class="tick strong" x="{u + (-5 if end else 5):.1f}" y="{_TOP + 12 + 15 * row}" '
                     f'text-anchor="{"end" if end else "start"}">{escape(name)} {value:.3g}</text>')
    return _figure(parts, title, describe, ())


def map_chart(series: Sequence[Series], *, title: str, describe: str) -> str:
    """Paths seen from above, one metre as long along x as along y, in metres."""
    points = [(float(x), float(y)) for s in series for x, y in zip(s.x, s.y, strict=True) if _known(x) and _known(y)]
    if not points:
        return nothing(title)
    box = (_LEFT, _TOP, WIDTH - _RIGHT, _MAP_HEIGHT - _BOTTOM)
    (x0, x1), (y0, y1) = ((min(p[k] for p in points), max(p[k] for p in points)) for k in (0, 1))
    per_px = max((x1 - x0) / (box[2] - box[0]), (y1 - y0) / (box[3] - box[1]), 1e-3) * 1.1
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    half_x, half_y = per_px * (box[2] - box[0]) / 2, per_px * (box[3] - box[1]) / 2
    axes = _Axes((cx - half_x, cx + half_x), (cy - half_y, cy + half_y), box)
    parts = [_frame(axes, "x [m]", "y [m]", False)]
    for k, s in enumerate(series[:_SERIES]):
        if s.points:
            parts += [f'<circle class="s{k} dot" cx="{u:.1f}" cy="{v:.1f}" r="1.7"/>' for u, v in (
                axes.at(float(x), float(y)) for x, y in zip(s.x, s.y, strict=True)
                if _known(x) and _known(y))]
            continue
        parts += [f'<path class="s{k} line" d="{d}"/>' for d in _paths(axes, s, False)]
        first = next(((x, y) for x, y in zip(s.x, s.y, strict=True) if _known(x) and _known(y)), None)
        if first is not None:
            u, v = axes.at(float(first[0]), float(first[1]))
            parts.append(f'<circle class="s{k} start" cx="{u:.1f}" cy="{v:.1f}" r="4"/>')
    return _figure(parts, title, describe, series, _MAP_HEIGHT)


def nothing(title: str) -> str:
    """Says that there is nothing to draw."""
    return f'<p class="none">{escape(title)}: no values.</p>'


# --- parts -------------------------------------------------------------------------------------------------------

def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _scaled(x: float, log: bool) -> float:
    return math.log10(x) if log else float(x)


def _padded(low: float, high: float, share: float, from_zero: bool = False) -> tuple[float, float]:
    if from_zero and high < _NOTHING:
        return 0.0, 1.0
    if high <= low:
        return (0.0, 1.1 * high) if from_zero else (low - 0.5, low + 0.5)
    pad = share * (high - low)
    return (low if from_zero else low - pad), high + pad


def _paths(axes: _Axes, series: Series, log: bool) -> list[str]:
    """SVG paths of the pieces between gaps; a lonely point is a short dash."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(series.x, series.y, strict=True):
        if _known(x) and _known(y):
            pieces[-1].append(axes.at(_scaled(x, log), float(y)))
        elif pieces[-1]:
            pieces.append([])
    return ["M" + "L".join(f"{u:.1f} {v:.1f}" for u, v in (piece if len(piece) > 1 else [
        piece[0], (piece[0][0] + 0.8, piece[0][1])])) for piece in pieces if piece]


def _frame(axes: _Axes, x_label: str, y_label: str, log: bool) -> str:
    left, top, right, bottom = axes.box
    parts = []
    for tick in nice_ticks(*axes.y):
        _, v = axes.at(0, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{v:.1f}" y2="{v:.1f}"/>'
                     f'<text class="tick" x="{left - 7}" y="{v + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in nice_ticks(*axes.x, count=5):
        u, _ = axes.at(tick, 0)
        text = number(10.0**tick) if log else number(tick)
        parts.append(f'<line class="grid" x1="{u:.1f}" x2="{u:.1f}" y1="{top}" y2="{bottom}"/>'
                     f'<text class="tick" x="{u:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="label" x="{(left + right) / 2:.1f}" y="{bottom + 37}" text-anchor="middle">'
                 f'{escape(x_label)}</text>')
    middle = (top + bottom) / 2
    parts.append(f'<text class="label" x="14" y="{middle:.1f}" text-anchor="middle" '
                 f'transform="rotate(-90 14 {middle:.1f})">{escape(y_label)}</text>')
    return "".join(parts)


def _figure(parts: Sequence[str], title: str, describe: str, series: Sequence[Series], height: int = HEIGHT,
            bars: bool = False) -> str:
    legend = ""
    if len(series) > 1:
        entries = "".join('<span class="key"><svg class="swatch" viewBox="0 0 22 10" aria-hidden="true">'
                          f"{_swatch(k, s.points, bars)}</svg>{escape(s.name)}</span>"
                          for k, s in enumerate(series[:_SERIES]))
        legend = f'<p class="legend">{entries}</p>'
    tall = ' class="tall"' if height > 2 * HEIGHT else ""
    return (f'<figure{tall}><svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="{escape(f"{title}. {describe}")}"><title>{escape(title)}</title>{"".join(parts)}</svg>'
            f'{legend}<figcaption><strong>{escape(title)}.</strong> {escape(describe)}</figcaption></figure>')


def _swatch(k: int, points: bool, bars: bool) -> str:
    if bars:
        return f'<rect class="s{k} bar" x="1" y="0" width="20" height="10"/>'
    if points:
        return f'<circle class="s{k} dot" cx="11" cy="5" r="3.5"/>'
    return f'<path class="s{k} line" d="M1 5L21 5"/>'
