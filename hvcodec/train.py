"""Training: the objective of the paper, and the loop that minimises it.

One network learns every rate and every split of the rate: each example of a batch draws its own
lambda and rate weights beta_l, some layers may be off, and the quantiser steps that follow from them
condition the network.
"""

import ctypes
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import modelfile
from . import steps as rates
from .checkerboard import take
from .data import Crops, pack
from .errors import ModelError, UsageError
from .ladder import LAYERS
from .likelihood import bits, wide_part
from .model import Config, Model, Prior
from .muon import Muon
from .quantise import quantise

BUCKETS = 24  # of lambda, for normalising the objective
CLIP = 10.0  # of the gradient's norm: only for accidents, since clipping at 1 starves the high rates
LOG_LAMBDA = (math.log(rates.LAMBDA_RANGE[0]), math.log(rates.LAMBDA_RANGE[1]))
LOG_BETA = (math.log(rates.BETA_RANGE[0]), math.log(rates.BETA_RANGE[1]))


@dataclass(frozen=True)
class Recipe:
    """How to train. Rates of learning are those at full size.

    Attributes:
        pixels: how many pixels to see in all.
        batch_pixels: pixels per step.
        crop: (share of the training after which it holds, crop size) in order.
        warmup: steps until the full rate of learning.
        decay: share of the training, at its end, over which the rate falls to zero.
        matrix_rate: for the matrices of blocks and resampling, under Muon.
        rate: for everything else, under Adam.
        average: decay per step of the exponential moving average that is exported.
        seed: of weights, crops and sampled weights.
    """

    pixels: float = 4e9
    batch_pixels: int = 16 * 128 * 128
    crop: tuple[tuple[float, int], ...] = ((0.0, 128), (0.7, 256))
    warmup: int = 100
    decay: float = 0.4
    matrix_rate: float = 0.015
    rate: float = 1.5e-3
    average: float = 0.998
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for a number of pixels or a seed that cannot be."""
        if not 1 <= self.pixels < math.inf or self.seed < 0:
            raise ValueError("pixels must be a finite number above 1, and the seed not negative")


def objective(model: Model, pixels: Tensor, steps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Rates and distortion of a batch; J = sum_l beta_l R_l + lambda MSE is their weighted sum.

    R_l = E[-log2 P(z_l | z_>l)], in bits per pixel, is the KL of layer l between its posterior of
    unit width and its prior (Xiao & Bamler 2023, eq. 4, for quantised latents). Symbols are the
    quantised ones that will be coded, and so is the rate; its gradients reach scale and shape from
    these, but mean and transform from symbols with uniform noise, whose rate is smooth in them.

    Args:
        pixels: RGB minus 128, B x 3 x H x W.
        steps: step indices B x L.
        present: the same with `OFF` for layers that are cut away.

    Returns:
        R: bits per pixel, B x L; zero for layers that are not present.
        MSE: in 8-bit units, averaged over R, G and B; B.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        latents = model.transform(pixels)
    area = pixels.shape[2] * pixels.shape[3]
    totals = [torch.zeros(len(pixels), device=pixels.device) for _ in LAYERS]

    def choose(index: int, p: int, prior: Prior) -> Tensor:
        y = take(latents[index], p, LAYERS[index].passes)
        delta = model.delta(steps, index)
        on = (present[:, index] != rates.OFF)[:, None, None, None]
        ratio, weight = wide_part(model.tail, prior.shape)
        scale = torch.exp2(prior.log2_scale) / delta
        target = (y - prior.mean) / delta
        with torch.no_grad():
            symbol = on * quantise(target, scale, ratio, weight)
        hard = bits(symbol, scale, ratio, weight)
        noisy = target + torch.rand_like(target) - 0.5
        smooth = bits(noisy, scale.detach(), ratio.detach(), weight.detach())
        cost = on * (hard + smooth - smooth.detach())
        totals[index] = totals[index] + cost.sum((1, 2, 3)) / area
        # For the mean the symbol is a constant, for the transform quantisation is the identity.
        return on * (symbol * delta + (y - y.detach()))

    values, h = model.descend(steps, present, pixels.shape[2], pixels.shape[3], choose)
    picture = model.synthesise(values, h, present)
    return torch.stack(totals, 1), (picture - pixels).square().mean((1, 2, 3))


@dataclass(frozen=True)
class Draw:
    """What each example of a batch is trained for.

    Attributes:
        lam: lambda; float64, B.
        beta: rate weights, B x L.
        steps: step indices that the file would carry, int64, B x L.
        present: the same with `OFF` for layers that are cut away.
    """

    lam: np.ndarray
    beta: np.ndarray
    steps: np.ndarray
    present: np.ndarray


def draw(rng: np.random.Generator, count: int) -> Draw:
    """Rates mostly where files are made, all of them sometimes; one file in four traded between
    layers; one in eight cut after a layer (and of these one in three made without the rest)."""
    core = rng.uniform(math.log(2e-4), math.log(0.15), count)
    wide = rng.uniform(*LOG_LAMBDA, count)
    lam = np.exp(np.where(rng.random(count) < 0.5, core, wide))
    beta = np.exp(rng.uniform(*LOG_BETA, (count, len(LAYERS))))
    beta[rng.random(count) > 0.25] = 1
    indices = [rates.step_indices(a, b) for a, b in zip(lam.tolist(), beta.tolist())]
    cut = np.where(rng.random(count) < 0.12, rng.integers(1, len(LAYERS), count), len(LAYERS))
    missing = np.arange(len(LAYERS)) >= cut[:, None]
    present = np.where(missing, rates.OFF, indices)
    steps = np.where((rng.random(count) < 0.33)[:, None], present, indices)
    return Draw(lam, beta, steps, present)


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step.

    By default glibc gives large blocks back to the system and takes them again page by page: a step
    then spends a fifth of its time in the kernel. Does nothing where there is no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, (2 << 30) - 1)
    mallopt(top_pad, 64 << 20)


def fast_dtype() -> torch.dtype:
    """bfloat16 where products in it are faster than in float32 on this machine, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(256, 256, dtype=dtype)
        a @ a
        start = time.perf_counter()
        for _ in range(3):
            a @ a
        seconds[dtype] = time.perf_counter() - start
    return min(seconds, key=lambda d: seconds[d])


def optimisers(model: Model, recipe: Recipe, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, Adam for heads, biases, tables and rotations."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = name.endswith(("expand.weight", "project.weight")) or name.startswith("up.")
        (matrices if inner and parameter.ndim == 2 else rest).append(parameter)
    adam = torch.optim.Adam(rest, recipe.rate, betas=(0.9, 0.98), fused=True)
    return [Muon(matrices, recipe.matrix_rate, dtype), adam]


class Trainer:
    """Everything that a training run holds, checkpointed as one file."""

    def __init__(self, folder: Path, recipe: Recipe, config: Config, device: str) -> None:
        self.folder, self.recipe = folder, recipe
        self.device = torch.device(device)
        self.crops = Crops(folder / "pictures.bin", recipe.seed)
        self.dtype = fast_dtype()
        torch.manual_seed(recipe.seed)
        self.model = Model(config).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.model, multi_avg_fn=self.average_weights)
        self.optimisers = optimisers(self.model, recipe, self.dtype)
        self.full_rates = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.step, self.pixels, self.seconds = 0, 0.0, 0.0
        self.typical = torch.zeros(BUCKETS)  # moving average of log J per bucket of log lambda
        self.compiled = torch.compile(objective, dynamic=False)

    def start(self, init: Path | None) -> None:
        """Begin a new run, from a model file or from the plain transform codec."""
        if init is not None:
            weights = modelfile.tensors(init)
            try:
                self.model.load_state_dict(
                    {k: v.float() for k, v in weights.items() if not k.startswith("tables.")}
                )
            except RuntimeError as error:
                raise ModelError(f"{init.name} has another configuration: {error}") from None
        else:
            pixels = torch.from_numpy(self.crops.batch(0, 128, 128)).permute(0, 3, 1, 2).float() - 128
            self.model.calibrate(pixels.to(self.device))
        self.average.module.load_state_dict(self.model.state_dict())

    def average_weights(
        self, averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int
    ) -> None:
        """Exponential moving average that forgets the first steps of a run quickly."""
        decay = min(self.recipe.average, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(list(averaged), list(current), count)

    @property
    def progress(self) -> float:
        return min(self.pixels / self.recipe.pixels, 1.0)

    def crop_size(self) -> int:
        return [size for after, size in self.recipe.crop if self.progress >= after][-1]

    def set_rates(self) -> None:
        """Linear warm-up, constant, linear fall to zero at the end."""
        factor = min(1.0, (self.step + 1) / self.recipe.warmup)
        factor *= min(1.0, (1 - self.progress) / self.recipe.decay)
        for optimiser, full in zip(self.optimisers, self.full_rates):
            for group, lr in zip(optimiser.param_groups, full):
                group["lr"] = lr * factor

    def train_step(self) -> dict[str, float]:
        """One step; returns what the log wants of it."""
        size = self.crop_size()
        count = max(self.recipe.batch_pixels // size**2, 1)
        rng = np.random.default_rng([self.recipe.seed, self.step, 1])
        drawn = draw(rng, count)
        steps, present = (torch.from_numpy(a).to(self.device) for a in (drawn.steps, drawn.present))
        pixels = torch.from_numpy(self.crops.batch(self.step + 1, count, size)).to(self.device)
        pixels = (pixels.permute(0, 3, 1, 2).float() - 128).contiguous(
            memory_format=torch.channels_last
        )
        self.set_rates()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            rate, mse = self.compiled(self.model, pixels, steps, present)
        lam, beta = (torch.from_numpy(a).float().to(self.device) for a in (drawn.lam, drawn.beta))
        j = (beta * rate).sum(1) + lam * mse
        loss = (j / self.norm(drawn.lam, j.detach())).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        self.pixels += count * size**2
        # J grows roughly like lambda^0.55; without that the mean over random lambdas is all noise.
        level = (j.detach() / lam**0.55).log().cpu()
        plain = torch.from_numpy((drawn.beta == 1).all(1) & (drawn.present[:, -1] != rates.OFF))
        return {
            "loss": loss.item(),
            "log_j": level[plain].mean().item() if plain.any() else math.nan,
            "norm": norm.item(),
        }

    def norm(self, lam: np.ndarray, j: Tensor) -> Tensor:
        """What each example's J is divided by, so that all rates weigh alike: a mean of its own J
        and of the usual one at its lambda."""
        low, high = LOG_LAMBDA
        bucket = ((np.log(lam) - low) / (high - low) * (BUCKETS - 1)).round().astype(int)
        for b, value in zip(bucket.tolist(), j.log().tolist()):
            if not math.isfinite(value):
                continue
            seen = self.typical[b].item()
            self.typical[b] = value if seen == 0 else 0.98 * seen + 0.02 * value
        usual = self.typical[torch.from_numpy(bucket)].exp().to(j.device)
        return (usual + j) / 2

    def save(self) -> None:
        state = {
            "config": self.model.config.to_dict(),
            "recipe": asdict(self.recipe),
            "data_sha256": self.crops.sha256,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "counters": {"step": self.step, "pixels": self.pixels, "seconds": self.seconds},
            "typical": self.typical,
        }
        unfinished = self.folder / "checkpoint.part"
        torch.save(state, unfinished)
        unfinished.rename(self.folder / "checkpoint.pt")

    def load(self) -> None:
        """Go on from the folder's checkpoint; how many pixels to see may differ."""
        state = torch.load(self.folder / "checkpoint.pt", map_location=self.device, weights_only=True)
        same = (
            state["config"] == self.model.config.to_dict()
            and state["recipe"]["seed"] == self.recipe.seed
            and state["data_sha256"] == self.crops.sha256
        )
        if not same:
            raise UsageError(f"{self.folder} holds a run of another network, seed or data")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        self.step, self.pixels, self.seconds = (
            state["counters"][k] for k in ("step", "pixels", "seconds")
        )
        self.typical = state["typical"].cpu()

    def run(self, log_every: int = 20, save_every: float = 180.0) -> None:
        """Train to the end of the recipe, logging to log.jsonl and checkpointing."""
        bar = tqdm(total=int(self.recipe.pixels), initial=int(self.pixels), unit="px", unit_scale=True)
        sums: list[dict[str, float]] = []
        began = saved = time.monotonic()
        with open(self.folder / "log.jsonl", "a") as log:
            while self.pixels < self.recipe.pixels:
                before = self.pixels
                sums.append(self.train_step())
                bar.update(int(self.pixels - before))
                now = time.monotonic()
                self.seconds += now - began
                began = now
                if len(sums) == log_every:
                    means = {k: round(float(np.nanmean([s[k] for s in sums])), 5) for k in sums[0]}
                    entry = {
                        "step": self.step,
                        "pixels": self.pixels,
                        "seconds": round(self.seconds),
                    }
                    log.write(json.dumps(entry | means) + "\n")
                    log.flush()
                    bar.set_postfix(log_j=f"{means['log_j']:.4f}")
                    sums = []
                if now - saved > save_every:
                    self.save()
                    saved = now
        bar.close()
        self.save()


def train(
    pictures: Path, folder: Path, recipe: Recipe, config: Config, init: Path | None = None
) -> Path:
    """Train on a folder of pictures; resume if `folder` holds a checkpoint. Returns its path.

    Args:
        pictures: searched at any depth.
        folder: of the run; made if it is not there.
        recipe, config: how to train, and what.
        init: model file to start from, of the same configuration.

    Raises:
        HvcError: no pictures found.
        UsageError: the folder holds a run of another network, seed or data.
        ModelError: `init` is not a model of this configuration.
    """
    keep_memory()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pictures.bin").exists():
        pack(pictures, folder / "pictures.bin")
    trainer = Trainer(folder, recipe, config, "cuda" if torch.cuda.is_available() else "cpu")
    if (folder / "checkpoint.pt").exists():
        trainer.load()
    else:
        trainer.start(init)
    trainer.run()
    return folder / "checkpoint.pt"
