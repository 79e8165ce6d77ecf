"""Dense targets: points on the true body are named exactly; hats, other people and places outside the image are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.torch_model import TorchBody, axis_angle_to_matrix
from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.presets import PRESETS as NETWORK_PRESETS
from human_scene_ros.synthetic.dataset import list_shards, open_shard, write_shards
from human_scene_ros.synthetic.world import WorldConfig
from human_scene_ros.training.config import PRESETS
from human_scene_ros.training.data import load_clips
from human_scene_ros.training.surface import PARTS, SurfaceHead
from human_scene_ros.training.teacher import clip_losses

MODEL = load_body_model()
CAMERA_K = torch.tensor([[[300.0, 0.0, 160.0], [0.0, 300.0, 120.0], [0.0, 0.0, 1.0]]])
FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # upright, chest to the camera


@pytest.fixture(scope="module")
def head() -> SurfaceHead:
    torch.manual_seed(0)
    return SurfaceHead(64, MODEL)


def standing() -> dict[str, torch.Tensor]:
    rotations = torch.eye(3).expand(1, 55, 3, 3).clone()
    rotations[0, 0] = FACING
    rotations[0, 16] = axis_angle_to_matrix(torch.tensor([0.0, 0.0, -1.0]))  # the left arm down
    return {"rotations": rotations, "betas": torch.tensor([[0.7, -0.4]]),
            "pelvis_camera": torch.tensor([[0.1, 0.0, 3.0]])}


def test_vertices_of_the_body_are_found_where_they_are_seen(head):
    body = standing()
    joints, vertices = TorchBody(MODEL, lod=max(MODEL.meshes))(body["rotations"], body["betas"])
    points = (vertices + body["pelvis_camera"] - joints[:, :1])[0]
    uv = points[:, :2] / points[:, 2:] * 300.0 + CAMERA_K[0, :2, 2]
    pixel = uv.round().long()
    _, first = np.unique(pixel.numpy() @ [1, 1000], return_index=True)  # one vertex a pixel
    chosen = torch.from_numpy(first)
    depth, person = torch.zeros(1, 240, 320), torch.zeros(1, 240, 320, dtype=torch.bool)
    depth[0, pixel[chosen, 1], pixel[chosen, 0]] = points[chosen, 2]
    person[0, pixel[chosen, 1], pixel[chosen, 0]] = True
    part, place, counts = head.truth(uv[None, chosen], depth, person, CAMERA_K, **body)
    assert counts.all() and len(chosen) > 500
    torch.testing.assert_close(part[0], head.part_of_vertex[chosen])
    torch.testing.assert_close(place[0], head.body.template[chosen])
    # Who faces the camera has the left side at the right of the picture, and shows the front.
    of = {name: part[0] == 1 + index for index, name in enumerate(("torso", "head", "left arm", "right arm"))}
    centre = {name: uv[chosen][where].mean(dim=0) for name, where in of.items()}
    assert centre["left arm"][0] > centre["torso"][0] > centre["right arm"][0]
    assert centre["head"][1] < centre["torso"][1]


def test_what_is_not_the_body_is_not_called_so(head):
    body = standing()
    uv = torch.tensor([[[170.0, 120.0], [170.0, 120.0], [10.0, 10.0], [-3.0, 50.0], [170.0, 60.0]]])
    depth, person = torch.full((1, 240, 320), 2.9), torch.zeros(1, 240, 320, dtype=torch.bool)
    person[0, 120, 170] = person[0, 60, 170] = True
    depth[0, 60, 170] = 2.6  # before the chest: a bag
    part, _, counts = head.truth(uv, depth, person, CAMERA_K, **body)
    assert part[0].tolist() == [1, 1, 0, 0, 0]
    assert counts[0].tolist() == [True, True, True, False, False]
    depth[0, 60, 170] = 1.5  # somebody else
    part, _, counts = head.truth(uv, depth, person, CAMERA_K, **body)
    assert part[0, 4] == 0 and counts[0, 4]


def test_every_joint_with_skin_belongs_to_one_part():
    joints = [joint for part in PARTS for joint in part]
    assert sorted(joints) == list(range(55))


def test_dense_terms_teach_the_window_head_and_fall(head, tmp_path):
    write_shards(tmp_path, seed=5, clips=4, frames_per_clip=2,
                 config=WorldConfig(width=96, height=64, empty_fraction=0.0))
    batch = load_clips(open_shard(list_shards(tmp_path)[0]), np.arange(4), np.arange(2))
    torch.manual_seed(1)
    network = HumanSceneNetwork(NETWORK_PRESETS["nano"])
    config = dataclasses.replace(PRESETS["nano-bodies"], predicted_masks=0.0, head_jitter_px=0.0, depth_jitter=0.0)
    body = TorchBody(MODEL)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=2e-3)
    values = []
    for _ in range(12):
        terms = clip_losses(network, body, batch, config, np.random.default_rng(0), 0, surface=head)
        loss = terms["parts"] + terms["surface"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert network.downstream_head.window.down[0][0].weight.grad.abs().sum() > 0
    assert values[-1] < 0.8 * values[0]
    assert not {"parts", "surface"} & set(clip_losses(network, body, batch, config, np.random.default_rng(0), 0))
