"""The recurrent step by onnxruntime: the same `step` as `HumanSceneNetwork`, from exported graphs.

Graphs are looked for in the folder `onnx` beside the weights, then in the user's cache
(`$XDG_CACHE_HOME/human_scene_ros`, else `~/.cache/human_scene_ros`), and are exported into the cache where neither
has them. What graphs belong to is written beside them, so that other weights never use them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from human_scene_ros.errors import ConfigError
from human_scene_ros.model.checkpoint import CheckpointInfo
from human_scene_ros.model.network import ALL_OUTPUTS, HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.onnx_export import GRAPHS, describes, export_step
from human_scene_ros.model.tracking import assign_ids
from human_scene_ros.model.types import NetworkOutput, StreamState

logger = logging.getLogger(__name__)

KEPT_EXPORTS = 6
"""Weights whose graphs stay in the cache, the newest; whoever trains tries many."""

def available() -> bool:
    """Whether onnxruntime can be imported."""
    return importlib.util.find_spec("onnxruntime") is not None


class OnnxNetwork:
    """`step` of a network by onnxruntime on the CPU; everything else of the network is the network's own.

    Args:
        network: On the CPU, in eval mode.
        folder: From `model.onnx_export.export_step`.
        threads: Of onnxruntime; 0 = its own choice. They sleep while idle: spinning ones starve everybody else.

    Raises:
        ConfigError: onnxruntime is missing, or the network is not on the CPU.
    """

    def __init__(self, network: HumanSceneNetwork, folder: Path, threads: int = 1) -> None:
        if not available():
            raise ConfigError("engine = 'onnx' needs onnxruntime; install it with: pip install onnxruntime onnx, "
                              "or use engine 'torch'")
        if next(network.parameters()).device.type != "cpu":
            raise ConfigError("engine = 'onnx' runs on the CPU; use device 'cpu', or engine 'torch' on a GPU")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.network = network
        self._sessions = {name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options,
                                                             providers=["CPUExecutionProvider"]) for name in GRAPHS}
        self._inputs = {name: [i.name for i in s.get_inputs()] for name, s in self._sessions.items()}
        self._outputs = {name: [o.name for o in s.get_outputs()] for name, s in self._sessions.items()}

    @property
    def config(self) -> NetworkConfig:
        """The network's."""
        return self.network.config

    @torch.no_grad()
    def step(self, image: Tensor, state: StreamState | None, *, update: bool = True, reset: bool = False,
             camera_K: Tensor | NDArray[np.floating] | None = None, outputs: frozenset[str] = ALL_OUTPUTS,
             ) -> tuple[NetworkOutput, StreamState]:
        """As `HumanSceneNetwork.step`; of the optional outputs only "mask" is there.

        Raises:
            ConfigError: "world" or "rgb" is asked of a network that has them.
        """
        network, config = self.network, self.config
        state = network.initial_state() if state is None else state
        for name, exists in (("world", config.world_head), ("rgb", config.rgb_head)):
            if exists and name in outputs:
                raise ConfigError(f"engine 'onnx' does not give output '{name}'; use engine 'torch'")
        known: dict[str, NDArray[Any]] = {"image": image.numpy(), "state_tokens": _contiguous(state.tokens)}
        size = (image.shape[2], image.shape[3])
        known["camera_K"] = _contiguous(network.camera_K(size, camera_K, 1, image)[0])
        self._run("look", known)
        found = np.argwhere(known["scores"][0] >= config.detection_threshold)
        known["cells"] = found[None].astype(np.int64)
        self._run("decode", known)
        people = len(found)
        if people:
            self._run("bodies", known)
        else:
            known |= {"rotmat": np.zeros((1, 0, 53, 3, 3), np.float32), "shape": np.zeros((1, 0, 10), np.float32),
                      "expression": np.zeros((1, 0, 10), np.float32), "transl": np.zeros((1, 0, 3), np.float32)}
        ids, bank = assign_ids(state.bank, known["human_out"][0], config.track_bank_cap)
        got = {name: torch.from_numpy(value) for name, value in known.items() if name not in ("image", "cells")}
        if reset:
            after = dataclasses.replace(network.initial_state(), bank=bank)
        elif update:
            after = StreamState(got["next_tokens"], None, bank, previous_reset=False)
        else:
            after = dataclasses.replace(state, bank=bank, previous_reset=False)
        scores = got["scores"]
        rows, columns = found.T
        return NetworkOutput(
            pts3d_in_self_view=got["points"], conf_self=got["confidence"], camera_pose=got.get("camera_pose"),
            pts3d_in_other_view=None, conf=None, rgb=None, smpl_shape=got["shape"], smpl_transl=got["transl"],
            smpl_rotmat=got["rotmat"], smpl_expression=got["expression"], smpl_id=torch.from_numpy(ids)[None],
            msk=got["mask"][..., None] if "mask" in got and "mask" in outputs else None,
            smpl_scores=scores[..., None], smpl_loc=got["loc"], detection_score=scores[:, rows, columns]), after

    def _run(self, name: str, known: dict[str, NDArray[Any]]) -> None:
        """Run one graph on what is known, and know its outputs."""
        values = self._sessions[name].run(None, {i: known[i] for i in self._inputs[name]})
        known.update(zip(self._outputs[name], values, strict=True))


def find_graphs(network: HumanSceneNetwork, weights: CheckpointInfo) -> Path:
    """The folder with this network's graphs, exported now if there is none.

    Raises:
        ConfigError: They must be exported, and the package `onnx` is missing.
    """
    cached = cache_folder() / f"{weights.name}_{weights.sha256[:16]}"
    for folder in (weights.path.parent / "onnx", cached):
        if describes(folder, network, weights.sha256):
            return folder
    begun = time.monotonic()
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".new_", dir=cached.parent))
    except OSError as error:
        cached = made = Path(tempfile.mkdtemp(prefix="human_scene_onnx_"))
        logger.warning("no ONNX graphs can be kept (%s); those of this run go to %s", error, made)
    export_step(network, made, weights.sha256)
    if made != cached:
        try:
            made.rename(cached)
        except OSError:  # another process was faster, or what lies there is damaged
            if describes(cached, network, weights.sha256):
                shutil.rmtree(made)
            else:
                shutil.rmtree(cached)
                made.rename(cached)
        with contextlib.suppress(OSError):  # other processes tidy up too
            exports = sorted(cached.parent.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
            for old in exports[:-KEPT_EXPORTS]:
                shutil.rmtree(old, ignore_errors=True)
    logger.info("exported the network to ONNX in %.1f s: %s", time.monotonic() - begun, cached)
    return cached


def cache_folder() -> Path:
    """Where exported graphs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "human_scene_ros" / "onnx"


def _contiguous(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
