"""From names to a running stream: weights, body model, device, threads."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.errors import ConfigError
from human_scene_ros.model.assembly import RecurrentStep
from human_scene_ros.model.checkpoint import CheckpointInfo, load_network
from human_scene_ros.model.network import PRODUCT_OUTPUTS, HumanSceneNetwork
from human_scene_ros.model.onnx_export import exportable
from human_scene_ros.runtime import onnx_engine
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig

logger = logging.getLogger(__name__)

TIMED_FRAMES = 4
AGREEMENT = 1e-3
"""Graphs whose points differ from torch's by more, relative to the largest, are not used automatically."""


def choose_device(name: str = "auto") -> torch.device:
    """"auto": the first CUDA device if there is one, else the CPU; otherwise torch's name of a device.

    Raises:
        ConfigError: There is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device = {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(f"device = {name!r}: this machine has {count} CUDA device(s); use 'auto' or 'cpu'")
    elif device.type != "cpu":
        raise ConfigError(f"device = {name!r}: expected auto, cpu, cuda or cuda:N")
    return device


def set_threads(threads: int) -> None:
    """CPU threads of the network and of corner tracking, for the whole process; 0 leaves their own choice.

    More than one on a busy machine is a trap: idle threads spin and a frame can take seconds.

    Raises:
        ConfigError: Negative.
    """
    if threads < 0:
        raise ConfigError(f"threads = {threads}: must be 0 (torch's choice) or positive")
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def gpu_memory_mib(device: str | torch.device) -> float:
    """Peak memory of the network on its GPU, MiB; 0 on a CPU."""
    device = torch.device(device)
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def make_stream(preset: str = "nano", checkpoint: str | Path | None = None, body: str | Path | None = None,
                device: str = "auto", threads: int = 1, config: StreamConfig | None = None,
                engine: Literal["auto", "torch", "onnx"] = "auto") -> HumanSceneStream:
    """Load everything and make a stream.

    Args:
        preset: Name of the network preset.
        checkpoint: Weights; None or "" = those that ship with the preset. Must be of that preset.
        body: SMPL-X-layout body model; None or "" = the shipped open body.
        device: See `choose_device`.
        threads: See `set_threads`.
        config: How to run the stream.
        engine: See `choose_engine`.

    Raises:
        ConfigError: Unknown preset, device or engine, or an engine that cannot run here.
        CheckpointError: The weights are missing, damaged or of another preset.
        BodyModelError: The body model is missing, damaged or lacks a key.
    """
    chosen = choose_device(device)
    set_threads(threads)
    network, info = load_network(checkpoint or preset, chosen, expect_preset=preset)
    return HumanSceneStream(network, load_body_model(body or None), config, info,
                            choose_engine(engine, network, info, threads, config))


def choose_engine(name: str, network: HumanSceneNetwork, weights: CheckpointInfo, threads: int = 1,
                  config: StreamConfig | None = None) -> RecurrentStep:
    """What runs the network's step.

    Args:
        name: "torch"; "onnx": onnxruntime, on the CPU, exported at the first use of these weights (a few seconds,
            then cached); "auto": the faster of the two where both can run, found by timing them.
        network: On its device.
        weights: What it was loaded from.
        threads: See `set_threads`.
        config: Its precision: onnxruntime computes in float32 only.

    Raises:
        ConfigError: Unknown name; or "onnx" is asked for and cannot run here.
    """
    if name not in ("auto", "torch", "onnx"):
        raise ConfigError(f"engine = {name!r}: expected auto, torch or onnx")
    mixed = config is not None and config.precision == "bfloat16"
    if name == "onnx" and mixed:
        raise ConfigError("engine = 'onnx' computes in float32; use precision 'auto', or engine 'torch'")
    on_cpu = next(network.parameters()).device.type == "cpu"
    if name == "torch" or (name == "auto" and (mixed or not on_cpu or not exportable(network.config)
                                               or not onnx_engine.available())):
        return network
    if name == "onnx":
        return onnx_engine.OnnxNetwork(network, onnx_engine.find_graphs(network, weights), threads)
    try:
        other = onnx_engine.OnnxNetwork(network, onnx_engine.find_graphs(network, weights), threads)
        return _faster(network, other)
    except Exception as error:  # whatever an optional package does wrong, torch can do the work
        logger.warning("onnxruntime cannot be used (%s: %s); torch runs the network", type(error).__name__, error)
        return network


def _faster(network: HumanSceneNetwork, other: RecurrentStep) -> RecurrentStep:
    """The engine whose best of some frames of the usual shape is shorter, if both say the same."""
    width = network.config.image_width_px
    height = max(16, round(0.75 * width / 16) * 16)
    image = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32))
    best_s, points = [], []
    for candidate in (network, other):
        times_s = []
        with torch.inference_mode():
            for _ in range(TIMED_FRAMES):
                begun = time.perf_counter()
                output, _ = candidate.step(image, None, outputs=PRODUCT_OUTPUTS)
                times_s.append(time.perf_counter() - begun)
        best_s.append(min(times_s))
        points.append(output.pts3d_in_self_view)
    apart = float((points[0] - points[1]).abs().max() / points[0].abs().max())
    if not apart < AGREEMENT:
        logger.warning("onnxruntime's points differ from torch's by %.1e of the largest; torch runs the network", apart)
        return network
    logger.info("engine: torch %.1f ms, onnxruntime %.1f ms a frame", *(1e3 * s for s in best_s))
    return other if best_s[1] < best_s[0] else network
