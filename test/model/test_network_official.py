"""The official structure: fixtures, parameter tables, and the cases that the recorded streams do not touch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_network import OFFICIAL, images, make, with_people
from torch.utils.flop_counter import FlopCounterMode

from human_scene_ros.commands.check import check_folder
from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.model.checkpoint import unfilled_network
from human_scene_ros.model.layers import CrossAttention, rope_phases, rotate
from human_scene_ros.model.network import HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.presets import PRESETS
from human_scene_ros.model.types import NetworkOutput

from helpers import shared_folder

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "network"
SIZE = (64, 96)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_reference_fixtures_are_reproduced():
    report = check_folder(shared_folder("fixtures/human3r"))
    assert report["failures"] == []
    assert report["passed"]
    exact = [entry for file, arrays in report["files"].items() if file.endswith("_exactrope.npz")
             for entry in arrays.values()]
    assert len(exact) >= 30
    assert all(entry["limit"] <= 1e-5 for entry in exact)


@pytest.mark.parametrize(("preset", "table"), [
    ("human3r_896l", "full"), ("human3r_672l", "full"), ("human3r_672b", "672B"), ("human3r_672s", "672S")])
def test_full_size_presets_have_the_names_and_shapes_of_the_tables(preset: str, table: str):
    lines = shared_folder(f"specs/state_dict_{table}.tsv").read_text().splitlines()[1:]
    expected = {name: shape for name, shape, *_ in (line.split("\t") for line in lines)}
    network = unfilled_network(PRESETS[preset])
    ours = {name: "x".join(map(str, value.shape)) for name, value in network.state_dict().items()}
    assert ours == expected


def test_the_largest_preset_has_the_published_number_of_parameters():
    network = unfilled_network(PRESETS["human3r_896l"])
    assert sum(p.numel() for p in network.parameters()) == 1_167_461_358


@pytest.mark.parametrize(("preset", "side", "gflop"), [
    ("human3r_896l", 64, {"encode": 523.0, "human": 4129.5, "decode": 477.1, "dense": 585.5, "rest": 19.2}),
    ("human3r_672s", 48, {"encode": 523.0, "human": 196.9, "decode": 477.1, "dense": 585.5, "rest": 1.9})])
def test_full_size_shapes_and_operations_are_those_of_the_reference(preset: str, side: int, gflop: dict):
    """Counted on the meta device at 512x384 with three people; the table was counted on the reference."""
    ours: dict[str, float] = {}

    def counted(name: str, call: Callable[[], Any]) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = call()
        ours[name] = ours.get(name, 0.0) + counter.get_total_flops() / 1e9
        return result

    with torch.device("meta"):
        network = HumanSceneNetwork(PRESETS[preset]).eval().requires_grad_(False)
        config = network.config
        image, at = torch.zeros(1, 3, 384, 512), torch.zeros(1, 3, 2, dtype=torch.long)
        cells = torch.zeros(1, 3, config.backbone.embed_dim)
        state = dataclasses.replace(network.initial_state(), previous_reset=False)
        scene = counted("encode", lambda: network.encode(image))
        human, grid = counted("human", lambda: network.human_tokens(image, scene))
        prompts = counted("rest", lambda: network.prompts(cells, torch.zeros(1, 3, 1024)))
        taps = counted("decode", lambda: network.decode(scene, prompts, at, state))
        dense = counted("dense", lambda: network.dense(scene, taps))
        bodies = counted("rest", lambda: network.bodies(taps, cells))
        counted("rest", lambda: (network.camera(taps), network.mask_logits(human, grid)))
        counted("rest", lambda: network.downstream_head.mlp_classif(human))
    assert grid == (side, side)
    assert scene.tokens.shape == (1, 768, 1024)
    assert taps.final.shape == (1, 1 + 768 + 3, 768)
    assert taps.new_memory.shape == (1, 256, 1536)
    assert dense.points_world.shape == (1, 384, 512, 3)
    assert bodies.rotmat.shape == (1, 3, 53, 3, 3)
    assert ours == pytest.approx(gflop, abs=0.06)


def test_a_tiny_stream_matches_golden():
    """Remake: `python test/model/make_golden_network.py`, after `human-scene check` on the reference fixtures.

    Tolerance 2e-5 relative RMS: float32 sums in another order (threads, other BLAS) stay an order below it.
    """
    golden = np.load(GOLDEN / "tiny_stream.npz")
    network = make(OFFICIAL)
    state = None
    for i, image in enumerate(images(4, *SIZE)):
        network.config = dataclasses.replace(network.config, detection_threshold=float(golden[f"f{i}.threshold"]))
        output, state = network.step(image[None], state, update=i != 1, reset=i == 2)
        for name in ("pts3d_in_self_view", "camera_pose", "pts3d_in_other_view", "smpl_transl", "smpl_rotmat"):
            ours, expected = getattr(output, name).numpy(), golden[f"f{i}.{name}"]
            ours = ours[:, ::4, ::4] if name.startswith("pts3d") else ours
            assert ours.shape == expected.shape, name
            error = np.linalg.norm(ours - expected) / max(np.linalg.norm(expected), 1e-12)
            assert error < 2e-5, (i, name, error)
        np.testing.assert_array_equal(output.smpl_id.numpy(), golden[f"f{i}.smpl_id"])


# -- attention and positions


def test_rotation_depends_on_the_difference_of_positions_only_also_for_negative_ones():
    rng = np.random.default_rng(0)
    q, k = (torch.from_numpy(rng.normal(size=(1, 2, 1, 12)).astype(np.float32)) for _ in range(2))

    def product(at_q: list[int], at_k: list[int]) -> torch.Tensor:
        turned = [rotate(x, rope_phases(torch.tensor([[p]]), 12)) for x, p in ((q, at_q), (k, at_k))]
        return (turned[0] * turned[1]).sum(-1)

    torch.testing.assert_close(product([-1, -1], [2, 5]), product([4, 1], [7, 7]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(product([-1, -1], [2, 5]), product([0, 0], [2, 5]), atol=1e-3)


def test_rows_turn_the_first_half_of_the_channels_and_columns_the_second():
    x = torch.ones(1, 1, 1, 8)
    down, right = (rotate(x, rope_phases(torch.tensor([[p]]), 8)) for p in ([3, 0], [0, 3]))
    torch.testing.assert_close(down[..., 4:], x[..., 4:])
    torch.testing.assert_close(right[..., :4], x[..., :4])
    c, s = np.cos(3.0), np.sin(3.0)
    np.testing.assert_allclose(down[0, 0, 0, [0, 2]].numpy(), [c - s, c + s], rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_mean_logits_equal_those_of_an_explicit_softmax_attention(masked: bool):
    torch.manual_seed(0)
    attention = CrossAttention(12, 3)
    x, y = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    keep = torch.ones(2, 7, dtype=torch.bool)
    if masked:
        keep[0, 5:] = keep[1, 2] = False
    result, mean = attention(x, y, key_mask=keep[:, None, None], want_logits=True)
    q, k, v = (t.unflatten(-1, (3, 4)).transpose(1, 2) for t in
               (attention.projq(x), attention.projk(y), attention.projv(y)))
    logits = q @ k.transpose(-1, -2) * 0.5
    weights = logits.masked_fill(~keep[:, None, None], -torch.inf).softmax(-1)
    torch.testing.assert_close(result, attention.proj((weights @ v).transpose(1, 2).flatten(2)))
    counted = keep[:, None, None].float()
    expected = ((logits * counted).sum(-1) / counted.sum(-1)).mean(1)
    torch.testing.assert_close(mean, expected)


def test_the_position_table_is_resized_by_scale_not_by_size():
    table = make(OFFICIAL).backbone.encoder
    ours = table.positions(8)[:, 1:]
    by_size = F.interpolate(table.pos_embed[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2), size=(8, 8),
                            mode="bicubic").flatten(2).transpose(1, 2)
    assert ours.shape == by_size.shape
    assert not torch.allclose(ours, by_size, atol=1e-4)


# -- what the recorded streams leave out


def step_with(people: int, **flags: bool) -> tuple[HumanSceneNetwork, torch.Tensor, NetworkOutput]:
    network = make(OFFICIAL)
    image = images(1, *SIZE)
    if people:
        with_people(network, image, people)
    else:
        network.config = dataclasses.replace(network.config, detection_threshold=0.999999)
    output, state = network.step(image, None, **flags)  # type: ignore[arg-type]
    return network, state, output


def test_heads_outside_the_image_belong_to_its_border_patches():
    network = make(OFFICIAL)
    # The 64x96 image lies in rows 16..80 of the 96x96 square, the square in 112 human-image pixels.
    loc = torch.tensor([[[-30.0, 5.0], [500.0, 500.0], [56.0, 3.0], [0.0, 56.0]]])
    uv = network.to_network_px(loc, SIZE)
    np.testing.assert_allclose(uv[0].numpy(), [[0, 0], [95, 63], [48, 0], [0, 32]], atol=1e-4)
    np.testing.assert_array_equal(network.scene_patches(loc, SIZE)[0].numpy(), [[0, 0], [3, 5], [0, 3], [2, 0]])


def test_two_people_in_one_patch_are_two_people():
    network = make(OFFICIAL)
    scene = network.encode(images(1, *SIZE))
    prompts = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(1))
    at = torch.tensor([[[1, 2], [1, 2]]])
    state = network.initial_state()
    taps, swapped = (network.decode(scene, p, at, state) for p in (prompts, prompts.flip(1)))
    torch.testing.assert_close(taps.human_out, swapped.human_out.flip(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(taps.new_tokens, swapped.new_tokens, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(taps.human_out[:, 0], taps.human_out[:, 1], atol=1e-3)


def test_first_frame_without_people_then_people_come():
    network, state, output = step_with(0)
    assert output.smpl_id.shape == (1, 0)
    assert output.smpl_transl.shape == (1, 0, 3)
    assert output.smpl_rotmat.shape == (1, 0, 53, 3, 3)
    assert output.smpl_loc.shape == (1, 0, 2)
    assert torch.isfinite(output.pts3d_in_self_view).all()
    assert len(state.bank.ids) == 0
    image = images(1, *SIZE, seed=5)
    output, state = with_people(network, image, 2).step(image, state)
    assert output.smpl_id.tolist() == [[0, 1]]
    assert state.bank.next_id == 2


def test_first_frame_without_update_gives_outputs_and_leaves_the_state():
    network, state, output = step_with(2, update=False)
    fresh = network.initial_state()
    torch.testing.assert_close(state.tokens, fresh.tokens, rtol=0, atol=0)
    torch.testing.assert_close(state.memory, fresh.memory, rtol=0, atol=0)
    assert output.smpl_id.tolist() == [[0, 1]]
    assert state.bank.next_id == 2, "tracking runs on every frame"
    again, _ = network.step(images(1, *SIZE), state, collect_stages=True)
    assert not torch.allclose(again.stages["pose_query"], network.pose_token), "not the first frame any more"


@pytest.mark.parametrize("people", [0, 2])
@pytest.mark.parametrize("update", [True, False])
def test_reset_acts_after_the_frame_and_forgets_all_but_identities(people: int, update: bool):
    network, before, _ = step_with(2)
    image = images(1, *SIZE, seed=3)
    if people:
        with_people(network, image, people)
    else:
        network.config = dataclasses.replace(network.config, detection_threshold=0.999999)
    plain, _ = network.step(image, before, update=update)
    output, state = network.step(image, before, update=update, reset=True)
    torch.testing.assert_close(output.pts3d_in_self_view, plain.pts3d_in_self_view, rtol=0, atol=0)
    fresh = network.initial_state()
    torch.testing.assert_close(state.tokens, fresh.tokens, rtol=0, atol=0)
    torch.testing.assert_close(state.memory, fresh.memory, rtol=0, atol=0)
    assert state.previous_reset
    assert len(state.bank.ids) >= 2
    following, _ = network.step(image, state, collect_stages=True)
    torch.testing.assert_close(following.stages["pose_query"], network.pose_token, rtol=0, atol=0)


def test_gating_mixes_the_state_between_old_and_new_but_not_after_a_reset_or_without_update():
    network, state, _ = step_with(2)
    network.config = dataclasses.replace(network.config, use_ttt3r=True)
    image = images(1, *SIZE, seed=9)
    output, after = network.step(image, state, collect_stages=True)
    new, old = output.stages["new_state"], state.tokens
    gate = ((after.tokens - old) / (new - old)).median(-1).values
    assert ((gate > 0) & (gate < 1)).all()
    torch.testing.assert_close(after.tokens, gate[..., None] * new + (1 - gate[..., None]) * old,
                               rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.memory, output.stages["new_mem"], rtol=0, atol=0)

    _, kept = network.step(image, state, update=False)
    torch.testing.assert_close(kept.tokens, old, rtol=0, atol=0)
    first, plain = network.step(image, None, collect_stages=True)
    torch.testing.assert_close(plain.tokens, first.stages["new_state"], rtol=0, atol=0)


def test_half_rounding_moves_encoder_tokens_by_about_its_precision():
    network, image = make(OFFICIAL), images(1, *SIZE)
    exact = network.encode(image).tokens
    network.config = dataclasses.replace(network.config, rope_fp16=True)
    change = float((network.encode(image).tokens - exact).norm() / exact.norm())
    assert 1e-6 < change < 5e-3


def test_padding_people_change_nothing_and_batches_equal_single_images():
    network = make(OFFICIAL)
    batch = images(2, *SIZE)
    scene = network.encode(batch)
    human, grid = network.human_tokens(batch, scene)
    rng = torch.Generator().manual_seed(2)
    prompts = torch.randn(2, 3, 16, generator=rng)
    cells = torch.randn(2, 3, 20, generator=rng)
    at = torch.tensor([[[0, 1], [2, 2], [3, 5]], [[1, 1], [0, 0], [2, 4]]])
    valid = torch.tensor([[True, True, False], [True, False, False]])
    network.config = dataclasses.replace(network.config, use_ttt3r=True)
    state = dataclasses.replace(network.initial_state(2), previous_reset=False)
    taps = network.decode(scene, prompts, at, state, valid=valid)
    dense, bodies, camera = network.dense(scene, taps), network.bodies(taps, cells), network.camera(taps)
    for i, people in enumerate((2, 1)):
        alone = network.encode(batch[i:i + 1])
        tokens, _ = network.human_tokens(batch[i:i + 1], alone)
        torch.testing.assert_close(tokens[0], human[i], rtol=1e-4, atol=1e-5)
        single = dataclasses.replace(network.initial_state(), previous_reset=False)
        one = network.decode(alone, prompts[i:i + 1, :people], at[i:i + 1, :people], single)
        for ours, expected in (
                (taps.new_tokens[i], one.new_tokens[0]), (taps.gate[i], one.gate[0]),
                (taps.new_memory[i], one.new_memory[0]),
                (taps.human_out[i, :people], one.human_out[0]), (camera[i], network.camera(one)[0]),
                (dense.points[i], network.dense(alone, one).points[0]),
                (dense.points_world[i], network.dense(alone, one).points_world[0]),
                (bodies.rotmat[i, :people], network.bodies(one, cells[i:i + 1, :people]).rotmat[0])):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_state_is_of_constant_size_and_never_changed_in_place():
    network, state, _ = step_with(3)
    network.config = dataclasses.replace(network.config, track_bank_cap=4)
    before = (state.tokens.clone(), state.memory.clone(), state.bank.ids.copy())
    first, most = state, 4
    for i in range(6):
        output, state = network.step(images(1, *SIZE, seed=i), state)
        assert state.tokens.shape == first.tokens.shape
        assert state.memory.shape == first.memory.shape
        most = max(most, output.smpl_id.shape[1])  # everybody in sight is remembered
        assert len(state.bank.ids) <= most
    torch.testing.assert_close(first.tokens, before[0], rtol=0, atol=0)
    torch.testing.assert_close(first.memory, before[1], rtol=0, atol=0)
    np.testing.assert_array_equal(first.bank.ids, before[2])


def test_outputs_that_are_not_asked_for_are_not_made():
    network, image = make(OFFICIAL), images(1, *SIZE)
    output, _ = network.step(image, None, outputs=frozenset())
    assert output.rgb is None
    assert output.pts3d_in_other_view is None
    assert output.msk is None
    full, _ = network.step(image, None)
    assert full.rgb.shape == (1, *SIZE, 3)
    assert full.msk.shape == (1, 112, 112, 1)
    torch.testing.assert_close(output.pts3d_in_self_view, full.pts3d_in_self_view, rtol=0, atol=0)


def test_errors_name_sizes():
    network = make(OFFICIAL)
    with pytest.raises(ShapeError, match="images are 100x64 px; width and height must be multiples of 16"):
        network.step(torch.zeros(1, 3, 64, 100), None)
    with pytest.raises(ShapeError, match=r"image has shape \(2, 3, 64, 96\); expected \(1, 3, any, any\)"):
        network.step(torch.zeros(2, 3, 64, 96), None)
    with pytest.raises(ConfigError, match="dec_num_heads = 5: dec_embed_dim = 768 must be a multiple of 4"):
        NetworkConfig(dec_num_heads=5)
    with pytest.raises(ConfigError, match="needs the feature maps of patch_embed = 'stem', got patch_embed = 'conv'"):
        dataclasses.replace(PRESETS["nano"], patch_embed="conv")
