"""The network by onnxruntime says what it says by torch, on recorded frames, any size and any number of people."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.errors import ConfigError
from human_scene_ros.model.checkpoint import load_network
from human_scene_ros.model.network import PRODUCT_OUTPUTS
from human_scene_ros.runtime import onnx_engine
from human_scene_ros.runtime.engine import choose_engine, make_stream
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.sources.reader import open_source

from helpers import REPOSITORY

pytest.importorskip("onnxruntime", reason="optional: pip install onnxruntime onnx")
pytest.importorskip("onnx", reason="optional: pip install onnxruntime onnx")
sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
from tiny_network import OFFICIAL, images, make  # noqa: E402 - lies in test/model

# float32 by two libraries; the issue asks for 1e-4 of the largest value.
LIMIT = 1e-4
COMPARED = ("pts3d_in_self_view", "conf_self", "smpl_shape", "smpl_transl", "smpl_rotmat", "smpl_expression", "smpl_id",
            "msk", "smpl_scores", "smpl_loc", "detection_score")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped network, and its graphs exported into a cache of this test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        network, weights = load_network("nano")
        yield network, weights, onnx_engine.find_graphs(network, weights)


@pytest.fixture(scope="module")
def engine(shipped):
    """The shipped network by onnxruntime; it keeps nothing between steps."""
    network, _, folder = shipped
    return onnx_engine.OnnxNetwork(network, folder)


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)) if a.size else 0.0


class Listening:
    """An engine that keeps its last output."""

    def __init__(self, engine):
        self.engine = engine

    def step(self, *arguments, **options):
        self.output, state = self.engine.step(*arguments, **options)
        return self.output, state


def test_a_recorded_stream_gives_the_same_estimates(shipped, engine):
    """The demo recording, every seventh image: people enter and leave, the camera moves."""
    network, weights, _ = shipped
    engines = [Listening(network), Listening(engine)]
    streams = [HumanSceneStream(network, load_body_model(), None, weights, engine) for engine in engines]
    counts, worst = [], 0.0
    with open_source(str(REPOSITORY / "demo" / "recording")) as source:
        for index, frame in enumerate(source):
            if index % 7:
                continue
            a, b = (s.step(frame) for s in streams)
            outputs = [e.output for e in engines]
            counts.append(np.asarray(outputs[0].detection_score).size)
            worst = max(worst, *(relative(*(getattr(o, name) for o in outputs)) for name in COMPARED),
                        relative(*(s.state().network.tokens for s in streams)))
            # Inliers of the odometry are counted, so its poses may differ by more than rounding.
            assert [x.track_id for x in a.bodies] == [x.track_id for x in b.bodies]
            np.testing.assert_allclose(a.T_world_camera, b.T_world_camera, atol=2e-3)
            for x, y in zip(a.bodies, b.bodies, strict=True):
                np.testing.assert_allclose(x.joints_camera, y.joints_camera, atol=2e-3)
    assert len(counts) >= 20 and len(set(counts)) >= 2, f"heads per frame {counts}: too dull a recording"
    assert worst < LIMIT


@pytest.mark.parametrize("size", [(112, 160), (80, 160), (160, 112), (128, 160)], ids=lambda s: f"{s[1]}x{s[0]}")
@pytest.mark.parametrize("threshold", [0.999, 0.02], ids=["nobody", "crowd"])
def test_any_size_and_number_of_people(shipped, engine, size, threshold):
    network = shipped[0]
    old = network.config
    network.config = dataclasses.replace(old, detection_threshold=threshold)
    try:
        by_torch = by_onnx = None
        people = []
        for k, image in enumerate(images(2, *size, seed=3)):
            K = None if k else np.array([[150.0, 0, 70], [0, 155, 50], [0, 0, 1]])
            a, by_torch = network.step(image[None], by_torch, camera_K=K, outputs=PRODUCT_OUTPUTS)
            b, by_onnx = engine.step(image[None], by_onnx, camera_K=K, outputs=PRODUCT_OUTPUTS)
            people.append(a.smpl_loc.shape[1])
            for name in COMPARED:
                assert relative(getattr(a, name), getattr(b, name)) < LIMIT, name
        assert relative(by_torch.tokens, by_onnx.tokens) < LIMIT
        assert max(people) == 0 if threshold > 0.9 else min(people) > 3
    finally:
        network.config = old


def test_state_is_kept_or_forgotten_as_by_torch(shipped, engine):
    network = shipped[0]
    first, second = images(2, 80, 96, seed=1)[:, None]
    for options in ({"update": False}, {"reset": True}, {"reset": True, "update": False}):
        _, a = network.step(first, None)
        a_output, a = network.step(second, a, **options)
        _, b = engine.step(first, None)
        b_output, b = engine.step(second, b, **options)
        assert a.previous_reset == b.previous_reset and a.bank.next_id == b.bank.next_id
        assert relative(a.tokens, b.tokens) < LIMIT and relative(a_output.conf_self, b_output.conf_self) < LIMIT


def test_graphs_are_exported_once_and_never_used_for_other_weights(shipped, caplog):
    network, weights, folder = shipped
    with caplog.at_level(logging.INFO):
        assert onnx_engine.find_graphs(network, weights) == folder
    assert "exported" not in caplog.text
    (folder / "decode.onnx").rename(folder / "gone.onnx")  # a damaged folder is made again
    assert onnx_engine.find_graphs(network, weights) == folder
    assert (folder / "decode.onnx").is_file() and not (folder / "gone.onnx").exists()
    assert not list(folder.parent.glob(".new_*"))
    for k in range(onnx_engine.KEPT_EXPORTS):  # older than what is made next, younger than nothing
        old = folder.parent / f"old_{k}"
        old.mkdir()
        os.utime(old, (k, k))
    other = dataclasses.replace(weights, sha256="0" * 64)
    made = onnx_engine.find_graphs(network, other)
    left = {path.name for path in folder.parent.iterdir()}
    assert made != folder and {made.name, folder.name} <= left and "old_0" not in left
    assert len(left) == onnx_engine.KEPT_EXPORTS


def test_export_leaves_the_network_as_it_was(shipped):
    network = shipped[0]  # exported by the fixture
    assert not any(module.training for module in network.modules()), "torch would go on with batch statistics"


def test_the_engine_is_chosen_or_refused_with_a_reason(shipped, monkeypatch, caplog):
    network, weights, _ = shipped
    assert choose_engine("torch", network, weights) is network
    assert isinstance(choose_engine("onnx", network, weights), onnx_engine.OnnxNetwork)
    with caplog.at_level(logging.INFO):
        chosen = choose_engine("auto", network, weights)
    assert "engine: torch" in caplog.text and chosen is not None
    assert choose_engine("auto", network, weights, config=StreamConfig(precision="bfloat16")) is network
    official = make(OFFICIAL)
    assert choose_engine("auto", official, weights) is official
    with pytest.raises(ConfigError, match="cannot be exported to ONNX.*engine 'torch'"):
        choose_engine("onnx", official, dataclasses.replace(weights, sha256="1" * 64))
    network.config, old = dataclasses.replace(network.config, use_ttt3r=True), network.config
    assert choose_engine("auto", network, weights) is network
    network.config = old
    with pytest.raises(ConfigError, match="float32"):
        choose_engine("onnx", network, weights, config=StreamConfig(precision="bfloat16"))
    with pytest.raises(ConfigError, match="expected auto, torch or onnx"):
        make_stream(engine="tensorrt")
    monkeypatch.setattr(onnx_engine, "available", lambda: False)
    assert choose_engine("auto", network, weights) is network
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        choose_engine("onnx", network, weights)


def test_a_graph_that_says_something_else_is_not_used(shipped, monkeypatch, caplog):
    network, weights, _ = shipped
    wrong = make(network.config, seed=5)
    monkeypatch.setattr(onnx_engine, "OnnxNetwork", lambda *_: wrong)
    assert choose_engine("auto", network, weights) is network
    assert "differ from torch" in caplog.text


def test_what_the_graphs_do_not_give_is_refused(shipped, engine):
    network = shipped[0]
    network.config, old = dataclasses.replace(network.config, world_head=True), network.config
    try:
        with pytest.raises(ConfigError, match="does not give output 'world'"):
            engine.step(torch.zeros(1, 3, 64, 96), None)
    finally:
        network.config = old
