"""BEDLAM folders made from our own worlds: what was rendered comes back, as a recording and as training shards."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_folders import convert, opened, save_exr
from scipy.spatial.transform import Rotation

from human_scene_ros.body.model import OPEN_BODY_PATH, load_body_model, rest_joints
from human_scene_ros.cli import main
from human_scene_ros.datasets.bedlam import BedlamScene, pose_from_unreal
from human_scene_ros.datasets.exr import read_exr
from human_scene_ros.datasets.sequence import ConvertOptions
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.geometry.transform import ROT_WORLD_LEVEL_CAMERA
from human_scene_ros.synthetic.dataset import FIELDS, list_shards, open_shard
from human_scene_ros.synthetic.world import SyntheticFrame, SyntheticWorld, WorldConfig

SCENE, SEQUENCE, SIZE, FRAMES = "20221010_3_1000_batch01hand_6fps", "seq_000000", (160, 90), 4


@pytest.fixture(scope="module")
def bedlam(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[SyntheticFrame]]:
    """Folder of the scene, folder of the body models, and the frames of the world that it shows."""
    root = tmp_path_factory.mktemp("bedlam")
    body = root / "smplx"
    body.mkdir()
    for gender in ("NEUTRAL", "MALE", "FEMALE"):
        (body / f"SMPLX_{gender}.npz").symlink_to(OPEN_BODY_PATH)
    frames = _two_people()
    make_bedlam(root / SCENE, frames)
    return root / SCENE, body, frames


def _two_people() -> list[SyntheticFrame]:
    """A world with at least two people whose bodies show in every frame."""
    for seed in range(40):
        world = SyntheticWorld(seed, WorldConfig(width=SIZE[0], height=SIZE[1], num_frames=FRAMES, fps=6.0,
                                                 renderer="numpy"))
        first = world.frame(0)
        if sum(p.visible_fraction > 0.2 for p in first.people) >= 2:
            return [first, *(world.frame(t) for t in range(1, FRAMES))]
    raise AssertionError("no world with two visible people")


def unreal_row(name: str, frame: SyntheticFrame) -> str:
    """Inverse of the published convention, written from its description."""
    T = frame.T_world_camera
    rot_world_mount = T[:3, :3] @ ROT_WORLD_LEVEL_CAMERA.T
    yaw, pitch, roll = Rotation.from_matrix(rot_world_mount).as_euler("ZYX", degrees=True)
    focal_mm = frame.camera.fx / frame.camera.width * 36.0
    x, y, z = 100.0 * T[:3, 3]
    return f"{name},{x:.6f},{-y:.6f},{z:.6f},{-yaw:.9f},{-pitch:.9f},{roll:.9f},{focal_mm:.9f},36,20.25,52"


def make_bedlam(folder: Path, frames: list[SyntheticFrame]) -> None:
    model = load_body_model(num_betas=10)
    rows = ["name,x,y,z,yaw,pitch,roll,focal_length,sensor_width,sensor_height,hfov"]
    labels: dict[str, list] = {key: [] for key in (
        "imgname", "pose_cam", "trans_cam", "shape", "cam_int", "cam_ext", "gender", "sub", "gtkps")}
    for t, frame in enumerate(frames):
        name = f"{SEQUENCE}_{5 * t:04d}"  # 6 of 30 frames per second
        image = folder / "png" / SEQUENCE / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), frame.image[..., ::-1])
        rows.append(unreal_row(f"{name}.png", frame))
        save_exr(folder / "depth" / SEQUENCE / f"{name}_depth.exr",
                 {"Depth": np.where(frame.depth_m > 0, frame.depth_m * 100.0, 1e10).astype(np.float32)})
        masks = folder / "masks" / SEQUENCE
        masks.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(masks / f"{name}_env.png"), np.where(frame.instance == 0, 255, 0).astype(np.uint8))
        for i, person in enumerate(reversed(frame.people)):  # the renderer's order is another one
            shown = np.where(frame.instance == person.person_id + 1, 255, 0).astype(np.uint8)
            top = np.arange(SIZE[1]) < SIZE[1] // 2
            cv2.imwrite(str(masks / f"{name}_{i:02d}_body.png"), np.where(top[:, None], shown, 0))
            cv2.imwrite(str(masks / f"{name}_{i:02d}_clothing.png"), np.where(top[:, None], 0, shown))
        for person in frame.people:
            K = frame.camera.K.copy()
            K[:2, 2] += 0.5  # the labels count pixels from their corners
            uv = frame.camera.project(person.joints_camera.astype(np.float64))
            offset = np.array([0.1 * t, -0.2, 0.3])
            T_camera_world = np.eye(4)
            T_camera_world[:3, 3] = offset
            for key, value in (
                    ("imgname", f"{SEQUENCE}/{name}.png"), ("pose_cam", person.parameters.full_pose().reshape(-1)),
                    ("trans_cam", person.parameters.transl - offset), ("shape", person.parameters.betas),
                    ("cam_int", K), ("cam_ext", T_camera_world), ("gender", ("male", "female")[person.person_id % 2]),
                    ("sub", f"rp_subject_{person.person_id}"), ("gtkps", np.resize(uv + 0.5, (127, 2)))):
                labels[key].append(value)
    camera = folder / "ground_truth/camera" / f"{SEQUENCE}_camera.csv"
    camera.parent.mkdir(parents=True)
    camera.write_text("\n".join(rows) + "\n")
    np.savez(folder.with_suffix(".npz"), **{key: np.array(value) for key, value in labels.items()})
    assert rest_joints(model, np.zeros(10, np.float32)).shape == (55, 3)


def test_unreal_turns_right_looks_up_and_rolls_clockwise():
    """The three sentences of the published example, one angle at a time."""
    def forward_right(*angles: float) -> tuple[np.ndarray, np.ndarray]:
        R = pose_from_unreal(0, 0, 0, *angles)[:3, :3]
        return R[:, 2], R[:, 0]

    level, _ = forward_right(0, 0, 0)
    np.testing.assert_allclose(level, [1, 0, 0], atol=1e-12)
    right, _ = forward_right(10, 0, 0)
    assert right[1] < -0.1  # y is left
    down, _ = forward_right(0, -2.9, 0)
    assert down[2] < -0.05
    _, axis = forward_right(0, 0, 5)
    assert axis[2] < -0.08  # clockwise: the right side sinks
    np.testing.assert_allclose(pose_from_unreal(500, -900, 169, 0, 0, 0)[:3, 3], [5, 9, 1.69])


def test_recording_holds_what_was_rendered(bedlam, tmp_path: Path):
    source, body, frames = bedlam
    (name, folder), = convert("bedlam", source, tmp_path / "out", body=body).items()
    assert name == f"{SCENE}_{SEQUENCE}"
    with opened(folder) as bag:
        read = list(bag)
        assert [f.stamp_ns for f in read] == [10**9 + round(5 * t * 1e9 / 30) for t in range(FRAMES)]
        for got, frame in zip(read, frames, strict=True):
            np.testing.assert_array_equal(got.image, frame.image)
            truth = bag.truth_at(got.stamp_ns)
            np.testing.assert_allclose(truth.camera.K, frame.camera.K, atol=1e-4)
            np.testing.assert_allclose(truth.T_world_camera, frame.T_world_camera, atol=1e-7)
            np.testing.assert_allclose(truth.depth_m, frame.depth_m, rtol=1e-6)
            people = {p.person_id: p for p in truth.people}
            assert len(people) >= 2
            for number, person in people.items():
                (expected,) = [p for p in frame.people if p.person_id == number]
                np.testing.assert_allclose(person.joints_camera, expected.joints_camera, atol=2e-5)
                np.testing.assert_allclose(person.parameters.transl, expected.parameters.transl, atol=1e-5)
                assert person.gender == (2, 1)[number % 2]


def test_labels_are_compared_with_their_own_keypoints(bedlam, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source, body, frames = bedlam
    scene = BedlamScene(source, body)
    assert scene.check_keypoints(scene.images(SEQUENCE)[0]) < 0.05 and not caplog.records
    make_bedlam(tmp_path / SCENE, frames[:1])
    labels = dict(np.load(tmp_path / f"{SCENE}.npz"))
    np.savez(tmp_path / f"{SCENE}.npz", **(labels | {"trans_cam": labels["trans_cam"] + [0.5, 0.0, 0.0]}))
    scene = BedlamScene(tmp_path / SCENE, body)
    assert scene.check_keypoints(scene.images(SEQUENCE)[0]) > 3.2
    assert "beside gtkps of the labels" in caplog.text


def test_shards_train_like_those_of_our_worlds(bedlam, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch = pytest.importorskip("torch")
    from human_scene_ros.training.data import load_clips

    source, body, frames = bedlam
    arguments = ["convert", "dataset", "bedlam", str(source), str(tmp_path / "shards"), "--shards", "--body", str(body),
                 "--size", "80x45", "--frames", "2", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"clips": 2, "shards": 1, "skipped_shards": 0}
    assert main(arguments) == 0 and '"skipped_shards": 1' in capsys.readouterr().out  # an interrupted call goes on
    shard = open_shard(list_shards(tmp_path / "shards")[0])
    for name, (dtype, shape) in FIELDS.items():
        assert shard[name].dtype == np.dtype(dtype) and shard[name].ndim == len(shape) + (1 if name == "K" else 2), name
    np.testing.assert_allclose(shard["K"][0], frames[0].camera.resized(80, 45).K, atol=1e-4)
    np.testing.assert_allclose(shard["T_world_camera"].reshape(-1, 4, 4), [f.T_world_camera for f in frames], atol=1e-6)
    np.testing.assert_allclose(shard["stamp_s"], [[0, 1 / 6], [0, 1 / 6]], atol=1e-6)
    batch = load_clips(shard, np.arange(2), np.arange(2))
    assert batch.images.shape == (2, 2, 3, 45, 80) and torch.isfinite(batch.depth_m).all()
    for c, t in np.ndindex(2, 2):
        frame = frames[2 * c + t]
        shown = frame.instance[1::2, 1::2]  # the pixels that shrinking by two keeps
        np.testing.assert_array_equal(batch.depth_m[c, t].numpy(), frame.depth_m[1::2, 1::2].astype(np.float16))
        expected = cv2.resize(frame.image, (80, 45), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(shard["images"][c, t], expected)
        present = [p for p in frame.people if (shown == p.person_id + 1).sum() > 20]
        assert present
        for person in present:
            row = int(np.flatnonzero(shard["person_id"][c, t] == person.person_id)[0])
            assert shard["valid"][c, t, row]
            np.testing.assert_allclose(shard["joints_camera"][c, t, row], person.joints_camera, atol=2e-5)
            np.testing.assert_allclose(shard["full_pose"][c, t, row], person.parameters.full_pose(), atol=1e-5)
            mask = shard["instance"][c, t] == row + 1
            np.testing.assert_array_equal(mask, shown == person.person_id + 1)  # masks found their person
            head = frame.camera.resized(80, 45).project(person.joints_camera[15].astype(np.float64))
            np.testing.assert_allclose(shard["head_uv"][c, t, row], head, atol=1e-3)
            if person.head_visible and mask.sum() > 60:
                assert shard["head_visible"][c, t, row]


@pytest.mark.parametrize("compression", [0, 2, 3])
def test_exr_comes_back(tmp_path: Path, compression: int):
    rng = np.random.default_rng(compression)
    smooth = (rng.random((37, 1)) * 1000 + np.arange(53)).astype(np.float32)
    channels = {"Depth": smooth, "A": rng.random((37, 53)).astype(np.float16)}
    save_exr(tmp_path / "a.exr", channels, compression)
    back = read_exr(tmp_path / "a.exr")
    assert set(back) == {"A", "Depth"}
    for name, values in channels.items():
        np.testing.assert_array_equal(back[name], values.astype(np.float32))
    data = (tmp_path / "a.exr").read_bytes()
    (tmp_path / "cut.exr").write_bytes(data[:len(data) // 2])
    with pytest.raises(SourceError, match="is cut or no OpenEXR image"):
        read_exr(tmp_path / "cut.exr")


def test_exr_of_the_reference_library_is_read():
    """Written by the Python package OpenEXR 3.5.3: scan lines, ZIP; channels as below."""
    back = read_exr(Path(__file__).parent / "golden" / "openexr_zip.exr")
    index = np.arange(180).reshape(9, 20)
    np.testing.assert_array_equal(back["Depth"], (index * 12.5).astype(np.float32))
    np.testing.assert_array_equal(back["H"], (index / 8).astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("missing", "complaint"), [
    (f"{SCENE}.npz", rf"{SCENE}\.npz is missing, also beside the folder; expected the published labels"),
    (f"{SCENE}/ground_truth/camera/{SEQUENCE}_camera.csv", rf"{SEQUENCE}_camera\.csv is missing"),
    (f"{SCENE}/depth/{SEQUENCE}/{SEQUENCE}_0005_depth.exr", rf"{SEQUENCE}_0005_depth\.exr is missing"),
])
def test_the_missing_file_is_named(bedlam, tmp_path: Path, missing: str, complaint: str):
    source, body, frames = bedlam
    make_bedlam(tmp_path / SCENE, frames[:2])
    (tmp_path / missing).unlink()
    with pytest.raises(SourceError, match=complaint):
        convert("bedlam", tmp_path / SCENE, tmp_path / "out", body=body)
    assert not list(tmp_path.glob("out/[!.]*")) and not list(tmp_path.glob("out/.*"))  # nothing half done stays


def test_what_cannot_be_converted_says_so(bedlam, tmp_path: Path):
    source, body, _ = bedlam
    (tmp_path / "20221011_closeup" / "png").mkdir(parents=True)
    with pytest.raises(SourceError, match="close-up scenes are stored turned by 90 degrees"):
        convert("bedlam", tmp_path / "20221011_closeup", tmp_path / "out", body=body)
    with pytest.raises(SourceError, match=r"BEDLAM stores SMPL-X parameters"):
        convert("bedlam", source, tmp_path / "out")
    from human_scene_ros.training.bedlam import write_bedlam_shards

    with pytest.raises(ConfigError, match="shards for training need people"):
        write_bedlam_shards(source, tmp_path / "s", ConvertOptions(people=False), 16, 9, 1)
