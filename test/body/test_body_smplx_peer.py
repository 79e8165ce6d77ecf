"""Our skinning against the `smplx` package (non-commercial licence: a peer for tests, never a dependency)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.body import model as body

smplx = pytest.importorskip("smplx", reason="the smplx package is not installed")
torch = pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.parametrize("official_layout", [False, True])
def test_vertices_and_joints_agree(tmp_path: Path, official_layout: bool):
    rng = np.random.default_rng(0)
    with np.load(body.OPEN_BODY_PATH) as file:
        data = {key: file[key] for key in file.files}
    n = len(data["v_template"])
    data["posedirs"] = rng.normal(0, 1e-3, (n, 3, 486)).astype(np.float32)
    if official_layout:  # 300 columns of shape, 100 of expression
        directions = np.zeros((n, 3, 400), np.float32)
        directions[..., :10], directions[..., 300:310] = data["shapedirs"][..., :10], data["shapedirs"][..., 10:]
        data["shapedirs"] = directions
        del data["num_betas"], data["num_expression"]
    data["shapedirs"] = data["shapedirs"].astype(np.float32)
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    np.savez(path, **data)

    count = 3
    peer = smplx.create(str(path), "smplx", ext="npz", use_pca=False, flat_hand_mean=True, num_betas=10,
                        num_expression_coeffs=10, batch_size=count)
    sizes = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3,
             "left_hand_pose": 45, "right_hand_pose": 45}
    pose = {key: rng.normal(0, 0.5, (count, size)).astype(np.float32) for key, size in sizes.items()}
    betas, expression = rng.normal(size=(2, count, 10)).astype(np.float32)
    transl = rng.normal(size=(count, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = peer(**{k: torch.from_numpy(v) for k, v in pose.items()}, betas=torch.from_numpy(betas),
                      expression=torch.from_numpy(expression), transl=torch.from_numpy(transl))

    model = body.load_body_model(path)
    full_pose = np.concatenate(list(pose.values()), axis=1).reshape(count, 55, 3)
    vertices, joints = body.pose_vertices(model, full_pose, betas, transl, expression)
    np.testing.assert_allclose(vertices, theirs.vertices.numpy(), atol=1e-5)
    np.testing.assert_allclose(body.all_joints(model, vertices, joints), theirs.joints.numpy()[:, :127], atol=1e-5)
