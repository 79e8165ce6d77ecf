"""The training loop: synthetic clips in, an exponential moving average of weights out.

One process, or several with `torchrun --nproc-per-node N -m human_scene_ros.cli train ...`; gradients, batch
statistics and the clock are averaged, so that all processes hold the same network and end at the same step. A run is a
folder: `last.pt` (everything needed to go on), `ema.safetensors` (what is shipped) and `log.jsonl` (one line per report
or validation). Starting again with the same folder resumes at the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.torch_model import TorchBody
from human_scene_ros.config import to_mapping
from human_scene_ros.errors import CheckpointError, ConfigError
from human_scene_ros.model.checkpoint import load_network, save_checkpoint
from human_scene_ros.model.network import HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.presets import PRESETS as NETWORK_PRESETS
from human_scene_ros.training.config import TrainConfig
from human_scene_ros.training.data import Batch, batches
from human_scene_ros.training.prompt import freeze_all_but_prompts
from human_scene_ros.training.surface import SurfaceHead
from human_scene_ros.training.teacher import clip_losses
from human_scene_ros.training.validation import validate, validation_batches

log = logging.getLogger(__name__)


class MovingAverage:
    """Exponential moving average of a module's floating-point state."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # a young average must not remember the random start
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up in steps, then half a cosine over the time budget down to 1 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * min(1.0, (step + 1) / config.warmup_steps) * (0.01 + 0.99 * cosine)


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices and kernels only."""
    matrices = [p for p in network.parameters() if p.ndim >= 2 and p.requires_grad]
    vectors = [p for p in network.parameters() if p.ndim < 2 and p.requires_grad]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": config.weight_decay},
                              {"params": vectors, "weight_decay": 0.0}], lr=config.learning_rate, betas=(0.9, 0.98))


def average_over_processes(network: nn.Module, seconds: float, world: int) -> float:
    """Mean of gradients, batch statistics and `seconds` over processes, in one message; returns the mean seconds.

    The time budget ends a run, so the clock is shared too: a process that thought itself done would leave the others
    waiting for its gradients.
    """
    clock = torch.tensor([seconds], device=next(network.parameters()).device)
    shared = [p.grad for p in network.parameters() if p.grad is not None]
    shared += [b for b in network.buffers() if b.is_floating_point()]
    shared.append(clock)
    flat = torch.cat([t.detach().flatten().float() for t in shared])
    torch.distributed.all_reduce(flat)
    flat /= world
    offset = 0
    for tensor in shared:
        tensor.detach().copy_(flat[offset:offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()
    return float(clock)


@dataclasses.dataclass
class Progress:
    """What a resumed run must know besides weights."""

    step: int = 0
    seconds: float = 0.0
    frames: int = 0


def train(data: Path, out: Path, config: TrainConfig, device: str = "cpu", threads: int = 1,
          scene: Path | None = None, bodies: Path | None = None, body_file: Path | None = None) -> Progress:
    """Train until the budget is spent; returns the final progress.

    Args:
        data: Folder of shards (`human-scene synthesize`).
        out: Run folder; created, or resumed if it holds `last.pt`.
        config: The run.
        device: torch device of this process.
        threads: torch CPU threads of this process; spinning threads on a busy machine cost more than they give.
        scene: Weights that a new run starts from.
        bodies: Weights whose window head a new run starts from.
        body_file: Body model that the betas of the shards belong to; None = the open body.

    Raises:
        SourceError: `data` holds no shard.
        CheckpointError: `last.pt` belongs to another network.
        ConfigError: Prompt tuning or the pose stage without weights to start from, or prompts that do not exist.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)

    network = HumanSceneNetwork(network_config(config)).to(device, memory_format=torch.channels_last)
    begins = scene is None and not (out / "last.pt").exists()
    if config.stage == "prompt":
        if begins:
            raise ConfigError("prompt tuning starts from official weights; give them with --scene (see 'human-scene "
                              "convert checkpoint')")
        freeze_all_but_prompts(network)
    if config.stage == "pose":
        if begins:
            raise ConfigError("the pose stage adds a head to trained weights; give them with --scene (--scene nano: "
                              "those that ship)")
        network.requires_grad_(False)
        network.pair_pose.requires_grad_(True)
    start_from(network, scene, bodies)
    if config.stage == "bodies":
        network.downstream_head.window.forget_tokens()
    body_model = load_body_model(body_file)
    body = TorchBody(body_model).to(device)
    learners = nn.ModuleDict({"network": network})
    surface = None
    if config.stage in ("bodies", "all"):
        surface = SurfaceHead(network.downstream_head.window.maps.in_channels, body_model).to(device)
        learners["surface"] = surface
    optimizer = make_optimizer(learners, config)
    average = MovingAverage(network, config.ema)
    progress = resume(out / "last.pt", learners, optimizer, average)
    rng = np.random.default_rng([config.seed, rank, progress.step])
    torch.manual_seed(int(rng.integers(2**62)))  # one start for all processes, but draws of their own
    stream = batches(data, config.batch_clips, config.clip_frames, rng)
    mixed = config.precision == "bfloat16" or (config.precision == "auto" and device.startswith("cuda"))
    unseen: list[Batch] = []

    started, reported, saved = progress.seconds, time.monotonic(), time.monotonic()
    clock = validated = time.monotonic()
    recent: dict[str, list[float]] = defaultdict(list)
    while progress.seconds < config.minutes * 60:
        batch = next(stream).to(device)
        fraction = progress.seconds / (config.minutes * 60)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.step, fraction)
        burn_in = int(rng.integers(0, config.burn_in + 1)) if fraction >= config.burn_in_from else 0
        # bfloat16 has the range of float32: no gradient scaler is needed, unlike with float16.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
            terms = clip_losses(network, body, batch, config, rng, burn_in, fraction, surface)
        loss = torch.stack([getattr(config.weights, name) * value for name, value in terms.items()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        seconds = started + time.monotonic() - clock
        if world > 1:
            seconds = average_over_processes(learners, seconds, world)
        norm = nn.utils.clip_grad_norm_(learners.parameters(), config.clip_gradient)
        if bool(torch.isfinite(norm)):
            optimizer.step()
            average.update(network, progress.step)
        else:
            log.warning("step %d skipped: gradient norm is %s", progress.step, float(norm))

        progress.step += 1
        progress.frames += world * batch.images.shape[0] * batch.images.shape[1]
        progress.seconds = seconds
        record(recent, terms, loss)
        if rank == 0 and time.monotonic() - reported > 20:
            reported = time.monotonic()
            report(out / "log.jsonl", progress, optimizer, recent)
        if rank == 0 and 0.0 < config.validate_every_s < time.monotonic() - validated:
            unseen = unseen or validation_batches(out / "validation", config, tuple(batch.images.shape[-2:]))
            report_validation(out / "log.jsonl", progress, average, body, unseen, config, device)
            validated = time.monotonic()
        if rank == 0 and time.monotonic() - saved > config.save_every_s:
            saved = time.monotonic()
            save(out, learners, optimizer, average, progress, config)
    if rank == 0:
        save(out, learners, optimizer, average, progress, config)
    return progress


def network_config(config: TrainConfig) -> NetworkConfig:
    """The configuration of the network that a run trains: its preset's, with the pair head where that is trained."""
    preset = NETWORK_PRESETS[config.preset]
    return dataclasses.replace(preset, pair_pose=True) if config.stage == "pose" else preset


def start_from(network: HumanSceneNetwork, scene: Path | None, bodies: Path | None) -> None:
    """Begin with the weights of earlier stages: the whole network of `scene`, the window head of `bodies`.

    A pair head is taken from `scene` if both have one, begins anew if only `network` has, and is left out otherwise.
    """
    if scene is not None:
        own = {name: value for name, value in network.state_dict().items() if name.startswith("pair_pose.")}
        given = load_network(scene)[0].state_dict()
        network.load_state_dict(own | {name: value for name, value in given.items()
                                       if name in own or not name.startswith("pair_pose.")})
    if bodies is not None:
        source = load_network(bodies)[0].downstream_head.window
        network.downstream_head.window.load_state_dict(source.state_dict())


def record(recent: dict[str, list[float]], terms: dict[str, Tensor], loss: Tensor) -> None:
    """Remember the terms of a step until the next report."""
    recent["loss"].append(float(loss.detach()))
    for name, value in terms.items():
        recent[name].append(float(value.detach()))


def report(path: Path, progress: Progress, optimizer: torch.optim.Optimizer, recent: dict[str, list[float]]) -> None:
    """Append the means since the last report to the log and print them."""
    line = {"step": progress.step, "minutes": round(progress.seconds / 60, 2), "frames": progress.frames,
            "lr": round(optimizer.param_groups[0]["lr"], 6)}
    line |= {name: round(float(np.mean(values)), 4) for name, values in recent.items()}
    recent.clear()
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(" ".join(f"{k}={v}" for k, v in line.items()), flush=True)


def report_validation(path: Path, progress: Progress, average: MovingAverage, body: TorchBody, unseen: list[Batch],
                      config: TrainConfig, device: str) -> None:
    """Append the losses of the moving average on unseen worlds to the log; collapsed heads are warned about."""
    network = HumanSceneNetwork(network_config(config)).to(device)
    network.load_state_dict(average.values)
    result = validate(network, body, unseen, config, device)
    with path.open("a") as file:
        file.write(json.dumps({"step": progress.step, "minutes": round(progress.seconds / 60, 2),
                               "validation": result}) + "\n")
    print(f"step={progress.step} validation " + " ".join(f"{k}={v}" for k, v in result.items() if k != "warnings"),
          flush=True)
    for warning in result["warnings"]:  # type: ignore[union-attr]
        log.warning("step %d: %s", progress.step, warning)


def save(out: Path, learners: nn.ModuleDict, optimizer: torch.optim.Optimizer, average: MovingAverage,
         progress: Progress, config: TrainConfig) -> None:
    """Write `last.pt` and `ema.safetensors`, each complete or not at all."""
    temporary = out / "last.pt.part"
    torch.save({"learners": learners.state_dict(), "optimizer": optimizer.state_dict(), "ema": average.values,
                "progress": dataclasses.asdict(progress), "preset": config.preset}, temporary)
    temporary.replace(out / "last.pt")
    shipped = HumanSceneNetwork(network_config(config))
    shipped.load_state_dict(average.values)
    save_checkpoint(out / "ema.safetensors", shipped,
                    {"training": to_mapping(config), "progress": dataclasses.asdict(progress),
                     "note": f"{config.preset}, trained on synthetic worlds only"}, torch.float16)


def resume(path: Path, learners: nn.ModuleDict, optimizer: torch.optim.Optimizer, average: MovingAverage) -> Progress:
    """Continue from `path` if it exists.

    Raises:
        CheckpointError: The file belongs to another network configuration.
    """
    if not path.exists():
        return Progress()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    try:
        learners.load_state_dict(stored["learners"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds preset '{stored.get('preset')}' of other dimensions; start a new run "
                              f"in another folder ({str(error).splitlines()[0]})") from error
    optimizer.load_state_dict(stored["optimizer"])
    average.values = stored["ema"]
    return Progress(**stored["progress"])
