"""The recurrent step as ONNX graphs, state in and state out, for any image size and any number of people.

Three graphs, because what comes between them is no arithmetic: which cells of the score map are people is decided
by a threshold outside, and where there is nobody the bodies are left out.

    look    image -> scene tokens, human tokens, the stem's maps, head scores, person mask
    decode  those, the people's cells, the state and K -> points, confidence, camera pose, people's tokens, next state
    bodies  image, mask, people's tokens and K -> rotations, shape, expression and translation of each person

For networks whose human branch is the pyramid and whose state is not gated. The official ones are left to torch:
their square human image makes sizes constants of a graph, and a CPU, for which this is made, is too slow for them by a
factor of a hundred.
"""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from human_scene_ros.config import to_mapping
from human_scene_ros.errors import ConfigError
from human_scene_ros.model.formulas import soft_sigmoid, take_cells
from human_scene_ros.model.network import HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.tracking import TrackBank
from human_scene_ros.model.types import DecoderTaps, SceneTokens, StreamState

FORMAT = "human_scene_ros.onnx.1"
OPSET = 18
GRAPHS = ("look", "decode", "bodies")
DESCRIPTION = "graphs.json"
_DYNAMIC = {  # name of the tensor -> its axes that vary
    "image": {2: "height", 3: "width"}, "scene_tokens": {1: "patches"}, "map4": {2: "height4", 3: "width4"},
    "map8": {2: "height8", 3: "width8"}, "human_tokens": {1: "cells"}, "scores": {1: "rows", 2: "columns"},
    "mask": {1: "mask_height", 2: "mask_width"}, "cells": {1: "people"}, "loc": {1: "people"},
    "human_cells": {1: "people"}, "human_out": {1: "people"}, "points": {1: "height", 2: "width"},
    "confidence": {1: "height", 2: "width"}, "rotmat": {1: "people"}, "shape": {1: "people"},
    "expression": {1: "people"}, "transl": {1: "people"},
}


class _Look(nn.Module):
    def __init__(self, network: HumanSceneNetwork) -> None:
        super().__init__()
        self.network = network
        self.inputs = ["image"]
        self.outputs = ["scene_tokens", "human_tokens", "map4", "map8", "scores",
                        *(["mask"] if network.config.mask_head else [])]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        scene = network.encode(image)
        human, grid = network.human_tokens(image, scene)
        _, scores = network.head_scores(human, grid)
        mask = (soft_sigmoid(network.mask_logits(human, grid)),) if network.config.mask_head else ()
        return (scene.tokens, human, *(scene.pyramid or ()), scores, *mask)


class _Decode(nn.Module):
    def __init__(self, network: HumanSceneNetwork) -> None:
        super().__init__()
        self.network = network
        config = network.config
        self.inputs = ["image", "scene_tokens", "human_tokens", "map4", "map8", "cells", "state_tokens", "camera_K"]
        self.outputs = ["points", "confidence", "loc", "human_cells", "human_out", "next_tokens",
                        *(["camera_pose"] if config.pose_head else [])]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        network, given = self.network, dict(zip(self.inputs, tensors, strict=True))
        image = given["image"]
        size = (image.shape[2], image.shape[3])
        grid = (size[0] // 16, size[1] // 16)
        scene = SceneTokens(given["scene_tokens"], network.patch_positions(grid, image.device), grid,
                            (given["map4"], given["map8"]))
        human_grid = network.human_grid(size)
        cells = given["cells"]
        human_cells = take_cells(given["human_tokens"], cells, human_grid)
        loc = network.head_locations(human_cells, cells)
        patches = network.scene_patches(loc, size)
        prompts = network.prompts(human_cells, take_cells(scene.tokens, patches, grid))
        state = StreamState(given["state_tokens"], None, TrackBank.empty(1), False)
        taps = network.decode(scene, prompts, patches, state)
        dense = network.dense(scene, taps, given["camera_K"], frozenset())
        pose = network.camera(taps)
        return (dense.points, dense.confidence, loc, human_cells, taps.human_out,
                network.next_state(state, taps).tokens, *(() if pose is None else (pose,)))


class _Bodies(nn.Module):
    def __init__(self, network: HumanSceneNetwork) -> None:
        super().__init__()
        self.network = network
        windowed = network.config.body_head == "window"
        self.inputs = ["human_out", "human_cells", *(["image", "mask", "loc", "camera_K"] if windowed else [])]
        self.outputs = ["rotmat", "shape", "expression", "transl"]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        network, given = self.network, dict(zip(self.inputs, tensors, strict=True))
        taps = DecoderTaps.only_people(given["human_out"])
        seen: dict[str, Tensor] = {}
        if "image" in given:
            size = (given["image"].shape[2], given["image"].shape[3])
            seen = {"images": given["image"], "mask": network.mask_in_network(given["mask"], size),
                    "loc": network.to_network_px(given["loc"], size), "camera_K": given["camera_K"]}
        bodies = network.bodies(taps, given["human_cells"], **seen)
        return bodies.rotmat, bodies.shape, bodies.expression, bodies.transl


def exportable(config: NetworkConfig) -> bool:
    """Whether there are graphs for such a network."""
    # With memory or gate the first frame after a reset is decoded in another way than those that follow.
    return config.backbone.kind == "pyramid" and not config.pose_memory and not config.use_ttt3r


def export_step(network: HumanSceneNetwork, out: Path, weights_sha256: str = "") -> Path:
    """Write the graphs of `network`, float32, and what they are (`graphs.json`, written last).

    Args:
        network: In eval mode, on the CPU.
        out: Folder; made if missing.
        weights_sha256: Of the weights file, to recognise graphs that belong to other weights.

    Returns:
        The folder.

    Raises:
        ConfigError: The network is not `exportable`, or the package `onnx`, which torch needs, is missing.
    """
    if not exportable(network.config):
        raise ConfigError(f"network '{network.config.name}' cannot be exported to ONNX: its human branch, "
                          f"pose memory or gated state need torch; use engine 'torch'")
    try:
        import onnx  # noqa: F401  (torch's exporter imports it late and reports its absence badly)
    except ImportError as error:
        raise ConfigError("export to ONNX needs the package onnx; install it with: pip install onnx") from error
    out.mkdir(parents=True, exist_ok=True)
    config = network.config
    # Neither 4:3 nor square, so that no two axes are equal by chance.
    height, width = 112, 160
    image = torch.linspace(-1, 1, 3 * height * width).view(1, 3, height, width)
    camera_K = network.camera_K((height, width), None, 1, image)[0].contiguous()
    state = network.initial_state()
    given = {"image": image, "camera_K": camera_K, "state_tokens": state.tokens.contiguous()}
    given["cells"] = torch.tensor([[[0, 1], [2, 3]]])
    graphs: tuple[_Look | _Decode | _Bodies, ...] = (_Look(network), _Decode(network), _Bodies(network))
    for graph in graphs:
        graph.eval()  # torch's exporter puts the mode of the outermost module back into all it holds: the network
    for name, graph in zip(GRAPHS, graphs, strict=True):
        inputs = tuple(given[i] for i in graph.inputs)
        with torch.no_grad():
            given |= dict(zip(graph.outputs, graph(*inputs), strict=True))
        _export(graph, inputs, out / f"{name}.onnx")
    description = {"format": FORMAT, "weights_sha256": weights_sha256, "network": to_mapping(config)}
    (out / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
    return out


def _export(graph: _Look | _Decode | _Bodies, inputs: tuple[Tensor, ...], file: Path) -> None:
    # The tracing exporter: the newer one takes twenty times as long and asks for two packages more.
    newer = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    axes = {name: _DYNAMIC[name] for name in (*graph.inputs, *graph.outputs) if name in _DYNAMIC}
    part = file.with_name(file.name + ".part")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: checks of shapes are not part of the graph, as they should
        torch.onnx.export(graph, inputs, str(part), input_names=list(graph.inputs), output_names=list(graph.outputs),
                          dynamic_axes=axes, opset_version=OPSET, **newer)
    part.replace(file)


def describes(folder: Path, network: HumanSceneNetwork, weights_sha256: str) -> bool:
    """Whether a folder holds complete graphs of exactly this network and these weights."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError):
        return False
    # Thresholds act outside the graphs and may differ.
    thresholds = {"detection_threshold": 0.5, "birth_threshold": 0.5}
    own = to_mapping(network.config) | thresholds
    theirs = dict(description.get("network", {})) | thresholds
    return (description.get("format") == FORMAT and description.get("weights_sha256") == weights_sha256
            and theirs == own and all((folder / f"{g}.onnx").is_file() for g in GRAPHS))
