"""People of one view over time: tokens matched by optimal transport with a dustbin.

`ReferenceTracker` is the published behaviour: it never forgets. `ViewTrackers` is what the fusion uses: all views at
once, by default with a displacement gate, death, smoothed tokens and a bounded memory.
Source: entropy-regularised matching with a dustbin (Sinkhorn iterations, Cuturi 2013; Sarlin et al. 2020).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.fusion.token_scale import TokenScale, TokenScaleResult

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def sinkhorn_log(scores: NDArray[np.floating], alpha: float, iterations: int = 20) -> Array:
    """Log-domain transport of (m, n) scores with a dustbin row and column of score `alpha`.

    Returns:
        (m + 1, n + 1) logarithm; entries between real rows and columns read as probabilities after exp.
        Columns sum to their marginals exactly, rows once converged.
    """
    scores = np.asarray(scores, np.float64)
    m, n = scores.shape
    if m + n == 0:
        return np.zeros((1, 1))
    Z = np.full((m + 1, n + 1), float(alpha))
    Z[:m, :n] = scores
    norm = -np.log(m + n)
    with np.errstate(divide="ignore"):  # no columns: the dustbin row has no mass
        log_mu = np.append(np.full(m, norm), np.log(n) + norm)
        log_nu = np.append(np.full(n, norm), np.log(m) + norm)
    u, v = np.zeros(m + 1), np.zeros(n + 1)
    for _ in range(iterations):
        u = log_mu - logsumexp(Z + v[None, :], axis=1)
        v = log_nu - logsumexp(Z + u[:, None], axis=0)
    return Z + u[:, None] + v[None, :] - norm


def mutual_matches(probability: NDArray[np.floating], threshold: float = 0.2) -> list[tuple[int, int]]:
    """Pairs that are each other's best (first index wins ties) and likelier than the threshold, by row."""
    if probability.size == 0:
        return []
    best_column, best_row = probability.argmax(axis=1), probability.argmax(axis=0)
    return [(i, int(j)) for i, j in enumerate(best_column)
            if best_row[j] == i and probability[i, j] > threshold]


class ReferenceTracker:
    """The published tracker of one view: tokens are replaced when matched and kept for ever when not."""

    def __init__(self, alpha: float = -10.0, iterations: int = 20, threshold: float = 0.2) -> None:
        self._alpha, self._iterations, self._threshold = alpha, iterations, threshold
        self._tokens: Array | None = None
        self._ids: list[int] = []
        self._next_id = 0

    @property
    def memory_size(self) -> int:
        """People remembered, seen or not."""
        return len(self._ids)

    def step(self, tokens: NDArray[np.floating]) -> list[int]:
        """(n, D) tokens of one frame -> their ids."""
        current = np.asarray(tokens, np.float64)
        if not len(current):
            return []
        ids = [-1] * len(current)
        kept: list[int] = []
        if self._tokens is not None and len(self._ids):
            distance = np.linalg.norm(self._tokens[:, None] - current[None], axis=-1)
            log_p = sinkhorn_log(-distance, self._alpha, self._iterations)
            pairs = mutual_matches(np.exp(log_p[:-1, :-1]), self._threshold)
            for i, j in pairs:
                ids[j] = self._ids[i]
            matched = {i for i, _ in pairs}
            kept = [i for i in range(len(self._ids)) if i not in matched]
        for j, known in enumerate(ids):
            if known < 0:
                ids[j] = self._next_id
                self._next_id += 1
        if self._tokens is not None and kept:
            current = np.concatenate([current, self._tokens[kept]])
        self._ids = ids + [self._ids[i] for i in kept]
        self._tokens = current
        return ids


@dataclasses.dataclass(frozen=True)
class TrackerConfig:
    """Settings of `ViewTrackers`.

    Args:
        mode: "robust", or "reference": the published behaviour, by tokens alone, with a memory that only grows; of the
            other settings it uses the next three.
        alpha: Score of being unmatched; a token distance of -alpha is as good as no match.
        iterations: Of the transport.
        threshold: Least probability of a match.
        gate_m: A head may jump this far between two frames ...
        max_speed_m_s: ... and this much farther per second.
        max_age_s: Forget after this time unseen.
        capacity: Remembered people per view; the one unseen for longest goes first.
        keep: Share of the remembered token when it is updated.
        calibrate_alpha: Replace `alpha` once by what the tokens themselves say, see `token_scale`.
    """

    mode: Literal["robust", "reference"] = "robust"
    alpha: float = -10.0
    iterations: int = 20
    threshold: float = 0.2
    gate_m: float = 0.6
    max_speed_m_s: float = 4.0
    max_age_s: float = 2.0
    capacity: int = 64
    keep: float = 0.7
    calibrate_alpha: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("robust", "reference"):
            raise ConfigError(f"tracker mode = {self.mode!r}: expected 'robust' or 'reference'")


class ViewTrackers:
    """The trackers of V views, stepped together (the robust ones as one batch of small problems instead of V).

    Ids of a view count from 0 and are never used again.
    """

    def __init__(self, views: int, config: TrackerConfig | None = None) -> None:
        self._config = config or TrackerConfig()
        self._views = views
        self._width = 0  # columns in use
        self._tokens = np.zeros((views, 0, 0))
        self._position = np.zeros((views, 0, 3))
        self._ids = np.zeros((views, 0), np.int64)
        self._seen = np.zeros((views, 0))
        self._alive = np.zeros((views, 0), bool)
        self._next_id = np.zeros(views, np.int64)
        self._scale = TokenScale() if self._config.calibrate_alpha else None
        self.token_scale: TokenScaleResult | None = None
        """What the tokens are worth, once known; only with `calibrate_alpha`."""
        self._reference = [ReferenceTracker(self._config.alpha, self._config.iterations, self._config.threshold)
                           for _ in range(views if self._config.mode == "reference" else 0)]

    def memory_size(self, view: int) -> int:
        """People remembered in a view."""
        if self._reference:
            return self._reference[view].memory_size
        return int(self._alive[view].sum())

    def step(self, view: NDArray[np.integer], stamp_s: NDArray[np.floating], position: NDArray[np.floating],
             tokens: NDArray[np.floating] | None) -> Index:
        """Match the detections of all views at one time step.

        Args:
            view: (N,) 0 to V - 1, detections of one view in any order.
            stamp_s: (N,).
            position: (N, 3) head in a frame that does not move with the camera, metres.
            tokens: (N, D) identity features; None = displacement only.

        Returns:
            (N,) ids per view.

        Raises:
            ShapeError: The reference mode got no tokens.
        """
        n_all = len(view)
        if not n_all:
            return np.zeros(0, np.int64)
        if self._reference:
            return self._reference_step(np.asarray(view), tokens)
        config = self._config
        now = float(stamp_s.max())
        if tokens is None:
            tokens = np.zeros((n_all, 0))
        if tokens.shape[1] != self._tokens.shape[2]:  # features came, went or changed their length
            self._tokens = np.zeros((self._views, self._width, tokens.shape[1]))
        count = np.bincount(view, minlength=self._views)
        order = view.argsort(kind="stable")
        sorted_view = view[order]
        slot = np.arange(n_all) - (count.cumsum() - count)[sorted_view]  # place of each detection within its view
        n = int(count.max())
        current_tokens = np.zeros((self._views, n, tokens.shape[1]))
        current_tokens[sorted_view, slot] = tokens[order]
        current_position = np.zeros((self._views, n, 3))
        current_position[sorted_view, slot] = position[order]
        current_stamp = np.zeros((self._views, n))
        current_stamp[sorted_view, slot] = stamp_s[order]
        real = np.zeros((self._views, n), bool)
        real[sorted_view, slot] = True

        column = np.full((self._views, n), -1)
        if self._width:
            column = self._match(current_tokens, current_position, current_stamp, real)
        # Matched: refresh. Views index rows, `column` the remembered person.
        rows, places = (column >= 0).nonzero()
        if len(rows):
            at = column[rows, places]
            self._tokens[rows, at] = (config.keep * self._tokens[rows, at]
                                      + (1.0 - config.keep) * current_tokens[rows, places])
            self._position[rows, at] = current_position[rows, places]
            self._seen[rows, at] = current_stamp[rows, places]
        newcomers = real & (column < 0)
        if newcomers.any():
            self._forget(now)
            self._admit(newcomers, column, current_tokens, current_position, current_stamp)
        ids = np.empty(n_all, np.int64)
        at = column[sorted_view, slot]
        ids[order] = self._ids[sorted_view, at]
        if self._scale is not None and tokens.shape[1]:
            self._scale.add(np.asarray(view), ids, tokens)
            self.token_scale = self._scale.result()
            if self.token_scale is not None:
                self._config = dataclasses.replace(config, alpha=self.token_scale.alpha)
                self._scale = None
        return ids

    def _reference_step(self, view: NDArray[np.integer], tokens: NDArray[np.floating] | None) -> Index:
        if tokens is None:
            raise ShapeError("tokens = None: the reference tracker knows people by their tokens; give (N, D) tokens or "
                             "set mode = 'robust'")
        ids = np.empty(len(view), np.int64)
        for v in np.unique(view).tolist():
            mine = np.flatnonzero(view == v)
            ids[mine] = self._reference[v].step(tokens[mine])
        return ids

    def _match(self, tokens: Array, position: Array, stamp: Array, real: NDArray[np.bool_]) -> Index:
        config = self._config
        remembered = self._alive & (float(stamp.max()) - self._seen <= config.max_age_s)
        offset = self._position[:, :, None] - position[:, None]
        jump_squared = (offset * offset).sum(axis=3)
        elapsed = np.abs(stamp[:, None] - self._seen[:, :, None])
        reach = config.gate_m + config.max_speed_m_s * elapsed
        allowed = (jump_squared <= reach * reach) & remembered[:, :, None] & real[:, None]
        if tokens.shape[2]:
            old = (self._tokens * self._tokens).sum(axis=2)
            new = (tokens * tokens).sum(axis=2)
            squared = old[:, :, None] + new[:, None] - 2.0 * (self._tokens @ tokens.transpose(0, 2, 1))
            distance = np.sqrt(np.maximum(squared, 0.0))
        else:
            distance = -config.alpha * np.sqrt(jump_squared) / reach
        probability = _sinkhorn_batch(np.where(allowed, -distance, -np.inf), remembered, real, config.alpha,
                                      config.iterations)
        best_column, best_row = probability.argmax(axis=2), probability.argmax(axis=1)
        views, places = real.nonzero()
        row = best_row[views, places]
        good = (best_column[views, row] == places) & (probability[views, row, places] > config.threshold)
        good &= allowed[views, row, places]
        column = np.full(real.shape, -1)
        column[views[good], places[good]] = row[good]
        return column

    def _forget(self, now: float) -> None:
        self._alive &= now - self._seen <= self._config.max_age_s
        used = np.flatnonzero(self._alive.any(axis=0))
        self._width = int(used[-1]) + 1 if len(used) else 0
        for name in ("_tokens", "_position", "_ids", "_seen", "_alive"):
            setattr(self, name, getattr(self, name)[:, :self._width])

    def _admit(self, newcomers: NDArray[np.bool_], column: Index, tokens: Array, position: Array,
               stamp: Array) -> None:
        for v in np.flatnonzero(newcomers.any(axis=1)).tolist():
            places = newcomers[v].nonzero()[0]
            free = self._free(v)
            if len(places) > len(free):
                self._widen(len(places) - len(free))
                free = self._free(v)
            if len(places) > len(free):  # full: the ones unseen for longest give way, those of this frame never
                unseen = np.array([m for m in np.argsort(self._seen[v], kind="stable")
                                   if self._alive[v, m] and m not in set(column[v].tolist())], np.int64)
                free = np.concatenate([free, unseen[:len(places) - len(free)]])
            if len(places) > len(free):
                self._widen(len(places) - len(free), forced=True)
                free = np.concatenate([free, np.arange(self._width - (len(places) - len(free)), self._width)])
            at = free[:len(places)]
            column[v, places] = at
            self._tokens[v, at] = tokens[v, places]
            self._position[v, at] = position[v, places]
            self._seen[v, at] = stamp[v, places]
            self._ids[v, at] = self._next_id[v] + np.arange(len(at))
            self._alive[v, at] = True
            self._next_id[v] += len(at)

    def _free(self, view: int) -> Index:
        return (~self._alive[view]).nonzero()[0]

    def _widen(self, by: int, forced: bool = False) -> None:
        """More columns, up to the capacity (more people in one frame than that are all kept)."""
        if not forced:
            by = min(by, max(self._config.capacity - self._width, 0))
        if by <= 0:
            return
        for name in ("_tokens", "_position", "_ids", "_seen", "_alive"):
            array = getattr(self, name)
            more = np.zeros((self._views, by, *array.shape[2:]), array.dtype)
            setattr(self, name, np.concatenate([array, more], axis=1))
        self._width += by


def _sinkhorn_batch(scores: Array, rows: NDArray[np.bool_], columns: NDArray[np.bool_], alpha: float,
                    iterations: int) -> Array:
    """Transport of (V, M, N) scores of which the marked rows and columns are real; probabilities (V, M, N).

    The plain exponentials are safe because everything is relative to the dustbin's score: hopeless pairs
    underflow to 0, and each row and column keeps its dustbin entry of 1.
    """
    V, M, N = scores.shape
    kernel = np.ones((V, M + 1, N + 1))
    kernel[:, :M, :N] = np.exp(np.minimum(scores - alpha, 500.0))
    m, n = rows.sum(axis=1), columns.sum(axis=1)
    total = np.maximum(m + n, 1).astype(np.float64)[:, None, None]
    # Rows and columns that are not real have no mass. Dustbins always have some, or nothing over nothing would follow.
    mu, nu = np.empty((V, M + 1, 1)), np.empty((V, N + 1, 1))
    mu[:, :M, 0], mu[:, M, 0] = rows, np.maximum(n, 1)
    nu[:, :N, 0], nu[:, N, 0] = columns, np.maximum(m, 1)
    mu /= total
    nu /= total
    transposed = np.ascontiguousarray(kernel.transpose(0, 2, 1))
    u, v = np.empty(mu.shape), (nu > 0.0).astype(np.float64)
    for _ in range(iterations):
        np.divide(mu, np.matmul(kernel, v, out=u), out=u)
        np.divide(nu, np.matmul(transposed, u, out=v), out=v)
    return kernel[:, :M, :N] * u[:, :M] * v[:, :N, 0][:, None] * total
