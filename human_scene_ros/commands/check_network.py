"""Numeric fixtures of the network: a folder with config.json, weights.safetensors and recorded streams.

Every array of every known file is recomputed and compared. What a file holds and we do not produce is a failure,
never a gap; only `post.focal` of the streams is left out, because random geometry has no focal length.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from human_scene_ros.body.convert import pose_network_people
from human_scene_ros.body.model import BodyModel, load_body_model
from human_scene_ros.body.skeleton import KEYPOINT_VERTICES
from human_scene_ros.errors import CheckpointError, HumanSceneError
from human_scene_ros.evaluation.golden import Comparison, relative_rms
from human_scene_ros.model.assembly import WorldChain, estimate_focal, pose_matrix
from human_scene_ros.model.checkpoint import load_strictly, unfilled_network
from human_scene_ros.model.formulas import (
    crop_from_square,
    decode_points,
    decode_pose,
    decode_rgb,
    from_square_px,
    pad_to_square,
    rotations_from_6d,
)
from human_scene_ros.model.network import BackboneConfig, DptConfig, HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.preprocess import place, resize_and_crop, to_tensor
from human_scene_ros.model.tracking import TrackBank, assign_ids, log_transport
from human_scene_ros.model.types import NetworkOutput, StreamState

LIMIT_EXACT_ROPE = 1e-5
LIMIT_FLOAT64 = 1e-9
LIMIT_OFFICIAL = 2e-4  # float16 rounding in the encoder flips by one unit in the last place between machines
LIMIT_HALF = 5e-4  # arrays stored as float16
INPUTS = {"in.image_u8", "in.update", "in.reset"}
SKIPPED = {"post.focal"}
EXACT = {"out.smpl_id", "stage.human_pos", "stage.state_pos", "stage.img_pos"}
FIXED = {"patch_size": 16, "dino_patch_size": 14, "rope_base": 100.0, "layernorm_eps": 1e-6, "state_pe": "2d",
         "num_betas": 10, "n_joints": 53}
KEYPOINT_NAMES = (  # joints 55..75 by the names the folder's JSON uses
    "nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel",
    "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky")
Arrays = Mapping[str, NDArray[Any]]


def known(path: Path) -> bool:
    """True if the file is one of a network folder that this module compares."""
    return path.stem in UNITS or path.stem.startswith("stream_")


def check_file(path: Path, device: str = "cpu") -> list[Comparison]:
    """Compare one `.npz` of a network folder; see `known`.

    Raises:
        HumanSceneError: The files beside it (configuration, weights) are missing or do not fit.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if path.stem in UNITS:
            results = list(UNITS[path.stem](arrays))
        else:
            results = list(Stream(path.parent, path.stem, device).compare(arrays))
    return [dataclasses.replace(r, name=f"{path.stem}/{r.name}") for r in results]


def compare(name: str, ours: Any, expected: NDArray[Any], limit: float) -> Comparison:
    """One array; `limit` 0 asks for equality."""
    ours = np.asarray(ours)
    if ours.shape == expected.shape and np.array_equal(ours, expected, equal_nan=ours.dtype.kind == "f"):
        return Comparison(name, 0.0, limit)
    return Comparison(name, relative_rms(ours, expected), limit)


def network_config(folder: Path) -> NetworkConfig:
    """The configuration that a folder's config.json describes.

    Raises:
        CheckpointError: It is missing, is no JSON, lacks a key or asks for something this network does not do.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
        other = {k: values[k] for k, v in FIXED.items() if k in values and values[k] != v}
        if other:
            raise CheckpointError(f"{path} asks for {other}; this network has {({k: FIXED[k] for k in other})}")
        dino, dpt = values["dino"], values["dpt"]
        same = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads",
                "state_dec_num_heads", "state_size", "local_mem_size")
        optional = {k: values[k] for k in ("pose_head", "rgb_head", "detection_threshold", "nms_kernel") if k in values}
        return NetworkConfig(
            name=f"fixture {folder.name}", **{k: values[k] for k in same}, **optional,
            mask_head=values.get("msk_head", True),
            backbone=BackboneConfig(embed_dim=dino["embed_dim"], depth=dino["depth"], num_heads=dino["num_heads"],
                                    image_px=values["mhmr_img_res"], table_side=dino["img_size"] // 14),
            dpt=DptConfig(feature_dim=dpt["feature_dim"], last_dim=dpt["last_dim"],
                          layer_dims=tuple(dpt["layer_dims"])))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); a network folder needs it") from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not the configuration of a network folder ({error!r})") from error


class Stream:
    """Runs one recorded stream through the network and yields the comparisons, worst frame per array."""

    def __init__(self, folder: Path, stem: str, device: str) -> None:
        self.folder, self.device = folder, device
        self.exact_rope = stem.endswith("_exactrope")
        self.name = stem.removeprefix("stream_").removesuffix("_exactrope")
        self.limit = LIMIT_EXACT_ROPE if self.exact_rope else LIMIT_OFFICIAL
        if device != "cpu":  # TF32 convolutions alone would exceed the limits
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.network = self._load()
        self.body = self._load_body()

    def _load(self) -> HumanSceneNetwork:
        config = network_config(self.folder)
        streams = json.loads((self.folder / "config.json").read_text()).get("streams", {})
        gated = bool(streams.get(self.name, {}).get("ttt", "ttt3r" in self.name))
        config = dataclasses.replace(config, rope_fp16=not self.exact_rope, use_ttt3r=gated)
        weights = self.folder / "weights.safetensors"
        try:
            tensors = load_file(weights)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{weights} cannot be read ({error}); a network folder needs it") from error
        network = unfilled_network(config)
        load_strictly(network, tensors, str(weights))
        return network.to(self.device).eval().requires_grad_(False)

    def _load_body(self) -> BodyModel | None:
        path = self.folder / "smplx_standin.npz"
        ids = self.folder / "smplx_standin_vertex_ids.json"
        if not path.is_file():
            return None
        table = json.loads(ids.read_text()) if ids.is_file() else None
        vertices = [table[name] for name in KEYPOINT_NAMES] if table else list(KEYPOINT_VERTICES.values())
        return load_body_model(path, keypoint_vertices=vertices)

    def compare(self, arrays: Arrays) -> Iterator[Comparison]:
        """Comparisons of one stream file, one per array name."""
        frames = 1 + max(int(re.match(r"f(\d+)\.", key).group(1)) for key in arrays)  # type: ignore[union-attr]
        worst: dict[str, Comparison] = {}
        state: StreamState | None = None
        with self._inputs(arrays) as inputs:
            for frame in range(frames):
                prefix = f"f{frame}."
                image = to_tensor(inputs[f"{prefix}in.image_u8"], self.device)
                output, state = self.network.step(
                    image, state, update=bool(inputs[f"{prefix}in.update"]), reset=bool(inputs[f"{prefix}in.reset"]),
                    collect_stages=True)
                expected = {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}
                ours = {"in.img": image} | self._named(output)
                ours |= self._post(output, (image.shape[2], image.shape[3]), expected)
                for name in expected.keys() - INPUTS - SKIPPED:
                    result = self._compare(name, ours.get(name), expected[name])
                    if name not in worst or not result.error <= worst[name].error:
                        worst[name] = result
        return iter([worst[name] for name in sorted(worst)])

    def _inputs(self, arrays: Arrays) -> Any:
        """Reduced files leave the inputs to the full file of the same stream."""
        path = self.folder / f"stream_{self.name}{'_exactrope' if 'f0.in.image_u8' in arrays else ''}.npz"
        if not self.exact_rope:
            path = self.folder / f"stream_{self.name}.npz"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; it holds the images of stream '{self.name}'")
        return np.load(path, allow_pickle=False)

    @staticmethod
    def _named(output: NetworkOutput) -> dict[str, Any]:
        named = {f"out.{f.name}": getattr(output, f.name) for f in dataclasses.fields(output)}
        named |= {f"stage.{name}": value for name, value in output.stages.items()}
        named["in.img_mhmr"] = output.stages.get("img_mhmr")
        return named

    def _compare(self, name: str, ours: Any, expected: NDArray[Any]) -> Comparison:
        limit = 0.0 if name in EXACT else self.limit
        if ours is None:
            return Comparison(name, math.inf, limit)
        ours = ours.cpu().numpy() if isinstance(ours, torch.Tensor) else np.asarray(ours)
        if name == "out.smpl_scores" and not np.array_equal(ours > 0, expected > 0):
            return Comparison(name, math.inf, limit)  # other detections or other suppression
        return compare(name, ours, expected, limit)

    def _post(self, output: NetworkOutput, size: tuple[int, int], expected: Arrays) -> dict[str, Any]:
        """What is derived from the outputs; only where the file has it."""
        ours: dict[str, Any] = {}
        if output.camera_pose is not None:
            ours["post.cam2first"] = pose_matrix(output.camera_pose[0].cpu().numpy())
        if output.msk is not None:
            ours["post.mask_unpad"] = crop_from_square(output.msk[..., 0], size)
        f = 1.2 * max(size)
        K = ours["post.K_used"] = np.array([[f, 0, size[1] / 2], [0, f, size[0] / 2], [0, 0, 1]])
        rotmats = output.smpl_rotmat[0].cpu().numpy()
        if not len(rotmats):
            people = {"rotvec": (53, 3), "joints_cam": (127, 3), "joints_2d": (127, 2)}
            if self.body is not None:
                people |= dict.fromkeys(("verts_cam", "verts_world"), self.body.v_template.shape)
            ours |= {f"post.{name}": np.zeros((0, *shape)) for name, shape in people.items()}
        if len(rotmats) and "post.rotvec" in expected:
            ours["post.rotvec"] = Rotation.from_matrix(rotmats.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 53, 3)
        if len(rotmats) and self.body is not None:
            vertices, joints = pose_network_people(
                self.body, rotmats, output.smpl_shape[0].cpu().numpy(), output.smpl_expression[0].cpu().numpy(),
                output.smpl_transl[0].cpu().numpy())
            projected = joints @ K.T
            ours |= {"post.verts_cam": vertices, "post.joints_cam": joints,
                     "post.joints_2d": projected[..., :2] / projected[..., 2:]}
            if "post.cam2first" in ours:
                T_world_camera = ours["post.cam2first"]
                ours["post.verts_world"] = vertices @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
        return ours


def _groups(arrays: Arrays, prefix: str) -> list[str]:
    return sorted({key.split(".")[0] for key in arrays if re.match(rf"{prefix}\d+\.", key)})


def _preprocess_and_units(arrays: Arrays) -> Iterator[Comparison]:
    for case in _groups(arrays, "case"):
        image = arrays[f"{case}.input_u8"]
        placement = place(image.shape[1], image.shape[0], int(arrays[f"{case}.size"]), whole_patches=False)
        cropped = resize_and_crop(image, placement)
        yield compare(f"{case}.output_u8", cropped, arrays[f"{case}.output_u8"], 0.0)
        yield compare(f"{case}.true_shape_hw", cropped.shape[:2], arrays[f"{case}.true_shape_hw"], 0.0)
    for case in _groups(arrays, "pad"):
        tensor, side = _tensor(arrays[f"{case}.in"]), int(arrays[f"{case}.res"])
        size = (tensor.shape[2], tensor.shape[3])
        yield compare(f"{case}.out_f16", pad_to_square(tensor, side).half(), arrays[f"{case}.out_f16"], LIMIT_HALF)
        yield compare(f"{case}.uv_out", from_square_px(_tensor(arrays[f"{case}.uv_in"]), side, size),
                      arrays[f"{case}.uv_out"], LIMIT_EXACT_ROPE)
        yield compare(f"{case}.mask_out", crop_from_square(_tensor(arrays[f"{case}.mask_in_f16"]), size),
                      arrays[f"{case}.mask_out"], 0.0)
    points, confidence = decode_points(_tensor(arrays["dense.raw"]))
    pose = decode_pose(_tensor(arrays["pose.raw"]))
    rotmat = rotations_from_6d(_tensor(arrays["rot.raw6d"]).unflatten(-1, (-1, 6)))
    rotvec = Rotation.from_matrix(rotmat.numpy().reshape(-1, 3, 3)).as_rotvec()
    ours = {"dense.pts3d": points, "dense.conf": confidence,
            "rgb.out": decode_rgb(_tensor(arrays["dense.raw"])[:, :3]), "pose.out": pose,
            "pose.cam2world": np.stack([pose_matrix(p) for p in pose.numpy()]), "rot.rotmat": rotmat,
            "rot.rotvec": rotvec.reshape(arrays["rot.rotvec"].shape)}
    for name, value in ours.items():
        yield compare(name, value, arrays[name], LIMIT_EXACT_ROPE)
    for case in _groups(arrays, "ot"):
        log_p = np.stack([log_transport(scores) for scores in arrays[f"{case}.scores"]])
        yield compare(f"{case}.logP", log_p, arrays[f"{case}.logP"], LIMIT_EXACT_ROPE)


def _focal(arrays: Arrays) -> Iterator[Comparison]:
    for name in sorted(k.removesuffix("_focal") for k in arrays if k.endswith("_focal")):
        ours = [estimate_focal(_tensor(points)) for points in arrays[f"{name}_pts"]]
        yield compare(f"{name}_focal", ours, arrays[f"{name}_focal"], LIMIT_EXACT_ROPE)


def _world_chain(arrays: Arrays) -> Iterator[Comparison]:
    poses = np.stack([pose_matrix(p) for p in arrays["pose_encoding"]])
    yield compare("cam2chunk", poses, arrays["cam2chunk"], LIMIT_EXACT_ROPE)
    chain, world = WorldChain(), []
    for T_chunk_camera, reset, keep in zip(poses, arrays["reset"], arrays["keep"], strict=True):
        if keep:
            T_world_camera, chain = chain.advance(T_chunk_camera, bool(reset))
            world.append(T_world_camera)
    yield compare("cam2world", np.stack(world), arrays["cam2world"], LIMIT_EXACT_ROPE)


def _sinkhorn_tracker(arrays: Arrays) -> Iterator[Comparison]:
    """The network's own tracker; the fusion's is compared with the same file by `check_fusion`."""
    for case in sorted(k.removesuffix("_scores") for k in arrays if k.endswith("_scores")):
        log_p = log_transport(arrays[f"{case}_scores"], float(arrays[f"{case}_alpha"]), int(arrays[f"{case}_iters"]))
        yield compare(f"{case}_logP (network)", log_p, arrays[f"{case}_logP"], LIMIT_FLOAT64)
    for case in sorted(k.removesuffix("_tokens") for k in arrays if k.endswith("_tokens")):
        tokens, offsets = arrays[f"{case}_tokens"], arrays[f"{case}_frame_offsets"]
        bank, ids, sizes = TrackBank.empty(tokens.shape[1]), [], []
        for start, end in zip(offsets[:-1], offsets[1:], strict=True):
            found, bank = assign_ids(bank, tokens[start:end], cap=len(tokens))
            ids += found.tolist()
            sizes.append(len(bank.ids))
        yield compare(f"{case}_ids (network)", ids, arrays[f"{case}_ids"], 0.0)
        yield compare(f"{case}_memory_size_after (network)", sizes, arrays[f"{case}_memory_size_after"], 0.0)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


UNITS: dict[str, Callable[[Arrays], Iterator[Comparison]]] = {
    "preprocess_and_units": _preprocess_and_units, "focal": _focal, "world_chain": _world_chain,
    "fusion_sinkhorn_tracker": _sinkhorn_tracker}

__all__ = ["HumanSceneError", "check_file", "known", "network_config"]
