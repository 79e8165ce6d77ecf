"""The camera followed from image to image by the network's pair head (`model.pair_pose`).

Each step is relative to the image before, so that errors add up; as a hint the steps are the expected motion of the
keyframe odometry. State is passed in and returned, never changed. No ROS.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import invert, make_transform, orthonormal
from human_scene_ros.model.pair_pose import PairPose
from human_scene_ros.scene import PoseHint


@dataclasses.dataclass(frozen=True)
class PairState:
    """The image before and where its camera was.

    Args:
        described: Its descriptors.
        depth_m: (1, H, W) along z.
        person: (1, H, W) 1 on people.
        camera: Its intrinsics.
        hint: Its pose in the optical frame of the first image, with the noise of the last step.
    """

    described: Tensor
    depth_m: Tensor
    person: Tensor
    camera: PinholeCamera
    hint: PoseHint


@torch.inference_mode()
def follow(head: PairPose, image: Tensor, camera: PinholeCamera, depth_m: NDArray[np.floating],
           person: NDArray[np.bool_], state: PairState | None) -> PairState:
    """The state after one more image.

    Args:
        head: In eval mode, on the image's device.
        image: (1, 3, H, W) network image in [-1, 1].
        camera: Its intrinsics.
        depth_m: (H, W) along z.
        person: (H, W) True on people.
        state: After the image before; None before the first. After an image of another camera nothing is known of the
            motion: the pose stays, with infinite noise.
    """
    described = head.describe(image)
    depth = torch.from_numpy(np.clip(np.nan_to_num(depth_m, nan=1e3), 1e-2, 1e3).astype(np.float32))[None].to(image)
    mask = torch.from_numpy(person)[None].to(image)
    hint = PoseHint(np.eye(4) if state is None else state.hint.T_hint_camera, np.inf, np.inf)
    if state is not None and state.camera == camera:
        camera_K = torch.from_numpy(camera.K)[None].to(image)
        motion = head(state.described, described, state.depth_m, state.person, camera_K)
        scale_m = float(motion.scale)
        T_now_last = make_transform(motion.rotation[0].double().cpu().numpy(),
                                    motion.translation[0].double().cpu().numpy() * scale_m)
        if np.isfinite(T_now_last).all():
            turn, step = motion.spread[0].tolist()
            hint = PoseHint(orthonormal(state.hint.T_hint_camera @ invert(orthonormal(T_now_last))), turn,
                            step * scale_m)
    return PairState(described, depth, mask, camera, hint)
