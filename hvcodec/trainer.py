"""A training run: optimisers, averages, rates of learning, checkpoints, and the loop."""

import ctypes
import json
import math
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from . import processes
from .data import Crops, pack
from .errors import HvcError, ModelError, UsageError
from .lossless_model import LosslessModel
from .model import Model
from .muon import Muon

CLIP = 3.0  # of the gradient's norm: only for accidents, since clipping at 1 starves the high rates
# Mean norms of the gradient, in multiples of the calmest stretch so far (and at least of 1, what a loss
# of about 1 usually has), above which nothing is saved any more, and training stops: a run that
# diverges must not take its last good checkpoint with it.
RESTLESS, DIVERGED = 3.0, 8.0
# What `torch.load` makes of files that are none of its own.
BROKEN: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
BROKEN += (struct.error, UnpicklingError)
# What a checkpoint has at least.
STATE = {"config", "recipe", "data_sha256", "model", "average", "optimisers", "counters"}


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
        """Raises TypeError or ValueError for what cannot be."""
        if not 1 <= self.pixels < math.inf or self.seed < 0:
            raise ValueError("pixels must be a finite number above 1, and the seed not negative")
        if (
            not self.crop
            or self.crop[0][0] != 0
            or any(not 0 <= share < 1 or size < 64 or size % 64 for share, size in self.crop)
        ):
            raise ValueError("crops are (share of the training, from 0; a multiple of 64 pixels)")
        if any(type(n) is not int for n in (self.seed, self.batch_pixels, *(n for _, n in self.crop))):
            raise TypeError("the seed, and numbers of pixels but the total, must be whole numbers")
        rest = (self.batch_pixels, self.warmup, self.decay, self.matrix_rate, self.rate, self.average)
        if min(rest) <= 0:
            raise ValueError("numbers of a recipe must be above 0")


def keep_memory() -> None:
    """Have the C library keep freed memory for the next step.

    By default glibc gives large blocks back to the system and takes them again page by page: a step
    then spends a fifth of its time in the kernel. Does nothing where there is no `mallopt`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
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


def optimisers(model: nn.Module, recipe: Recipe, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network, Adam for heads, biases, tables and rotations."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = name.endswith(("expand.weight", "project.weight")) or name.startswith("up.")
        (matrices if inner and parameter.ndim == 2 else rest).append(parameter)
    adam = torch.optim.Adam(rest, recipe.rate, betas=(0.9, 0.98), fused=True)
    return [Muon(matrices, recipe.matrix_rate, dtype), adam]


Network = TypeVar("Network", Model, LosslessModel)


class Trainer(Generic[Network]):
    """Everything that a training run holds, checkpointed as one file."""

    def __init__(self, folder: Path, recipe: Recipe, model: Network) -> None:
        self.folder, self.recipe = folder, recipe
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.crops = Crops(folder / "pictures.bin", recipe.seed)
        self.dtype = processes.agreed(fast_dtype())
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.model, multi_avg_fn=self.average_weights)
        self.optimisers = optimisers(self.model, recipe, self.dtype)
        self.full_rates = [[g["lr"] for g in o.param_groups] for o in self.optimisers]
        self.step, self.pixels, self.seconds = 0, 0.0, 0.0

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
        count = max(self.recipe.batch_pixels // size**2 // processes.count(), 1) * processes.count()
        rng = np.random.default_rng([self.recipe.seed, self.step, 1])
        crops = self.crops.batch(self.step + 1, count, size, processes.share())
        pixels = torch.from_numpy(crops).to(self.device)
        pixels = (pixels.permute(0, 3, 1, 2).float() - 128).contiguous(
            memory_format=torch.channels_last
        )
        self.set_rates()
        losses, notes = self.losses(pixels, rng, count)
        losses.mean().backward()
        processes.average_gradients(self.model)
        norm = self.clip()
        if torch.isfinite(norm):
            for optimiser in self.optimisers:
                optimiser.step()
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        self.pixels += count * size**2
        loss = processes.gathered(losses.detach()).mean()
        return {"loss": loss.item(), "norm": norm.item()} | notes

    def clip(self) -> Tensor:
        """Bound the gradient; returns its norm."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)

    def autocast(self) -> torch.autocast:
        """Products in the dtype that this processor is fast in."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def losses(
        self, pixels: Tensor, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of each example of this process's share, and what the log wants besides.

        Args:
            pixels: the share, B x 3 x H x W, -128 to 127.
            rng: the same in all processes, to draw for all `count` examples of the batch.
            count: examples of the batch in all processes.
        """
        raise NotImplementedError

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {
            "config": self.model.config.to_dict(),
            "recipe": asdict(self.recipe),
            "data_sha256": self.crops.sha256,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "counters": {"step": self.step, "pixels": self.pixels, "seconds": self.seconds},
        }

    def save(self) -> None:
        unfinished = self.folder / "checkpoint.part"
        torch.save(self.state(), unfinished)
        unfinished.replace(self.folder / "checkpoint.pt")

    def load(self) -> dict:
        """Go on from the folder's checkpoint, which is returned; how many pixels to see may differ.

        Raises:
            ModelError: it cannot be read.
            UsageError: it is of another network, seed or data.
        """
        state = read(self.folder / "checkpoint.pt", self.device)
        own = self.model.config
        try:
            config = type(own).from_dict(state["config"])  # as older runs may have written it
        except ValueError:
            config = None
        same = (
            config == own
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
        return state

    def run(self, log_every: int = 20, save_every: float = 180.0) -> None:
        """Train to the end of the recipe, logging to log.jsonl and checkpointing.

        Raises:
            HvcError: training diverges; the checkpoint is the last one from before.
        """
        first = processes.rank() == 0  # the others do the same and tell nobody
        # Noise is new after a stop, and each process's own.
        torch.manual_seed(self.recipe.seed + (self.step << 16) + processes.rank())
        bar = tqdm(
            total=int(self.recipe.pixels),
            initial=int(self.pixels),
            unit="px",
            unit_scale=True,
            disable=not first,
        )
        sums: list[dict[str, float]] = []
        calmest = norm = math.inf
        began = saved = time.monotonic()
        with open(self.folder / "log.jsonl" if first else os.devnull, "a") as log:
            while self.pixels < self.recipe.pixels:
                before = self.pixels
                sums.append(self.train_step())
                bar.update(int(self.pixels - before))
                now = time.monotonic()
                self.seconds += now - began
                began = now
                if len(sums) == log_every:
                    known = {k: [s[k] for s in sums if not math.isnan(s[k])] for k in sums[0]}
                    means = {k: round(float(np.mean(v)), 5) for k, v in known.items() if v}
                    entry = {
                        "step": self.step,
                        "pixels": self.pixels,
                        "seconds": round(self.seconds),
                    }
                    log.write(json.dumps(entry | means) + "\n")
                    log.flush()
                    bar.set_postfix(loss=f"{means.get('loss', math.nan):.4f}")
                    norm = means.get("norm", math.inf)
                    calmest = max(min(calmest, norm), 1.0)
                    if math.isinf(norm) or norm > DIVERGED * calmest:
                        raise HvcError(
                            "training diverges; try lower rates of learning from the checkpoint"
                        )
                    sums = []
                if first and now - saved > save_every and norm <= RESTLESS * calmest:
                    self.save()
                    saved = now
        bar.close()
        if first and norm <= RESTLESS * calmest:
            self.save()
        processes.wait()


def read(checkpoint: Path, device: torch.device | str = "cpu") -> dict:
    """A run's state, see `Trainer.state`.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if set(state) >= STATE:
            return state
    except BROKEN:
        pass
    raise ModelError(f"{checkpoint} is not a training checkpoint of this version")


def prepare(pictures: Path, folder: Path) -> None:
    """Pack the pictures for a run in this folder, which is made if it is not there.

    Raises:
        HvcError: no pictures found.
    """
    keep_memory()
    # Each layer's shape compiles anew, at each size of crop.
    torch._dynamo.config.recompile_limit = 64
    folder.mkdir(parents=True, exist_ok=True)
    if processes.rank() == 0 and not (folder / "pictures.bin").exists():
        pack(pictures, folder / "pictures.bin")
    processes.wait()
