"""A measured number with everything that a reader needs to judge it, and the two ways of averaging sequences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Pooling = Literal["weighted", "sequences", "sum"]

OK, DEGENERATE, NO_TRUTH, NO_MATCH, TOO_SHORT = "ok", "degenerate", "no truth", "no match", "too short"


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of one sequence; its unit is in its key.

    Args:
        value: None where it is undefined; `status` says why.
        alignment: What was applied before measuring, in words ("none", "sim3 per person", ...).
        count: What the value is a mean over (frames, people, pixels, pairs): its weight when sequences are pooled.
        pooling: "weighted" by `count`; "sequences": plain mean over sequences (trajectories); "sum" (events).
        status: "ok", "degenerate" (an alignment is not determined), "no truth", "no match" or "too short".
    """

    value: float | None
    alignment: str = "none"
    count: float = 1.0
    pooling: Pooling = "weighted"
    status: str = OK

    @classmethod
    def of(cls, value: float, alignment: str = "none", count: float = 1.0, pooling: Pooling = "weighted",
           undefined: str = NO_TRUTH) -> Metric:
        """A metric whose NaN means `undefined`."""
        if math.isfinite(value):
            return cls(float(value), alignment, float(count), pooling)
        return cls(None, alignment, 0.0, pooling, undefined)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def pooled_frames(sequences: Sequence[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Values over all sequences as if their frames were one: WHAM's and GVHMR's way of averaging.

    Trajectory errors are the plain mean over the sequences that have one, events are summed.
    """
    keys = {key: None for sequence in sequences for key in sequence}  # in order of appearance
    return {key: _pooled([sequence[key] for sequence in sequences if key in sequence]) for key in keys}


def _pooled(metrics: Sequence[Metric]) -> Metric:
    known = [m for m in metrics if m.value is not None]
    first = (known or list(metrics))[0]
    if not known:
        return first
    values = [float(m.value) for m in known if m.value is not None]
    count = sum(m.count for m in known)
    if first.pooling == "sum":
        value = sum(values)
    elif first.pooling == "sequences" or count == 0:
        value = sum(values) / len(values)
    else:
        value = sum(v * m.count for v, m in zip(values, known, strict=True)) / count
    alignments = sorted({m.alignment for m in known})
    return Metric(value, " / ".join(alignments), count, first.pooling)


def human3r_log(sequences: Sequence[Mapping[str, Metric]], keys: Sequence[str]) -> dict[str, Metric]:
    """Averages as they follow from Human3R's log: values per sequence printed with one decimal, then weighted by
    the number of matched people. Up to 0.05 away from `pooled_frames`.
    """
    rounded = [{key: dataclasses.replace(s[key], value=round(float(s[key].value), 1))  # type: ignore[arg-type]
                for key in keys if key in s and s[key].value is not None} for s in sequences]
    return pooled_frames(rounded)


def from_json(values: Mapping[str, Any]) -> Metric:
    """The inverse of `Metric.to_json`."""
    return Metric(**values)
