"""From names to a running stream: weights, body model, device, threads."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.errors import ConfigError
from human_scene_ros.model.checkpoint import load_network
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig


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
                device: str = "auto", threads: int = 1, config: StreamConfig | None = None) -> HumanSceneStream:
    """Load everything and make a stream.

    Args:
        preset: Name of the network preset.
        checkpoint: Weights; None or "" = those that ship with the preset. Must be of that preset.
        body: SMPL-X-layout body model; None or "" = the shipped open body.
        device: See `choose_device`.
        threads: See `set_threads`.
        config: How to run the stream.

    Raises:
        ConfigError: Unknown preset or device.
        CheckpointError: The weights are missing, damaged or of another preset.
        BodyModelError: The body model is missing, damaged or lacks a key.
    """
    chosen = choose_device(device)
    set_threads(threads)
    network, info = load_network(checkpoint or preset, chosen, expect_preset=preset)
    return HumanSceneStream(network, load_body_model(body or None), config, info)
