"""Training: what to draw, and the loop that minimises the objective (`objective.py`).

One network learns every rate and every split of the rate: each example of a batch draws its own
lambda and rate weights beta_l, some layers may be off, and the quantiser steps that follow from them
condition the network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from . import modelfile, processes
from . import steps as rates
from .errors import ModelError
from .ladder import LAYERS
from .model import NOT_ITS_OWN, Config, Model
from .objective import objective
from .trainer import Recipe, Trainer, prepare

BUCKETS = 24  # of lambda, for normalising the objective
LOG_LAMBDA = (math.log(rates.LAMBDA_RANGE[0]), math.log(rates.LAMBDA_RANGE[1]))
LOG_CORE = (math.log(1e-3), math.log(0.4))  # 0.1 to 2 bits per pixel, roughly
CORE_SHARE = 0.75
# Of the gradient's norm in the coarsest layer, usually 0.4. Its symbols are few and large: in long runs
# their gradients grew until batches counted for what they made of them (docs/training-log.md).
COARSEST_CLIP = 0.5
LOG_BETA = (math.log(rates.BETA_RANGE[0]), math.log(rates.BETA_RANGE[1]))


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
    core = rng.uniform(*LOG_CORE, count)
    wide = rng.uniform(*LOG_LAMBDA, count)
    lam = np.exp(np.where(rng.random(count) < CORE_SHARE, core, wide))
    beta = np.exp(rng.uniform(*LOG_BETA, (count, len(LAYERS))))
    beta[rng.random(count) > 0.25] = 1
    indices = [rates.step_indices(a, b) for a, b in zip(lam.tolist(), beta.tolist())]
    cut = np.where(rng.random(count) < 0.12, rng.integers(1, len(LAYERS), count), len(LAYERS))
    missing = np.arange(len(LAYERS)) >= cut[:, None]
    present = np.where(missing, rates.OFF, indices)
    steps = np.where((rng.random(count) < 0.33)[:, None], present, indices)
    return Draw(lam, beta, steps, present)


@torch.no_grad()
def grow(model: Model, weights: Mapping[str, Tensor]) -> None:
    """Start a model from the weights of a smaller one, so that it computes the same.

    What is new (channels, blocks, corrections) starts random inside, but nothing old listens to it yet
    (Net2Net, Chen, Goodfellow & Shlens 2016, with zeros in place of copies): new residual blocks end in
    zeros as they are made, and new columns of old rows are set to zero here.

    Raises:
        LookupError, RuntimeError: the weights are not those of a smaller model.
    """
    own = model.state_dict()
    for name, old in weights.items():
        target = own[name]
        corner = tuple(slice(n) for n in old.shape)
        if target.ndim == 2:
            target[: len(old)] = 0
        target[corner].copy_(old)


class PhotoTrainer(Trainer[Model]):
    """Training of the hierarchical VAE."""

    def __init__(self, folder: Path, recipe: Recipe, config: Config) -> None:
        torch.manual_seed(recipe.seed)
        super().__init__(folder, recipe, Model(config))
        self.typical = torch.zeros(BUCKETS)  # moving average of log J per bucket of log lambda

    def start(self, init: Path | None) -> None:
        """Begin a new run, from a model file or from the plain transform codec."""
        if init is not None:
            weights = {k: torch.from_numpy(v) for k, v in modelfile.tensors(init).items()}
            try:
                grow(
                    self.model,
                    {k: v for k, v in weights.items() if k.split(".")[0] not in NOT_ITS_OWN},
                )
            except (LookupError, RuntimeError) as error:
                raise ModelError(f"{init.name} does not fit into this configuration: {error}") from None
        else:
            pixels = torch.from_numpy(self.crops.batch(0, 128, 128)).permute(0, 3, 1, 2).float() - 128
            self.model.calibrate(pixels.to(self.device))
        self.average.module.load_state_dict(self.model.state_dict())

    def clip(self) -> Tensor:
        coarsest = cast(nn.ModuleList, self.model.rungs[0])
        nn.utils.clip_grad_norm_(coarsest.parameters(), COARSEST_CLIP)
        return super().clip()

    def losses(
        self, pixels: Tensor, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, dict[str, float]]:
        batch = draw(rng, count)
        drawn = Draw(*(values[processes.share()] for values in vars(batch).values()))
        steps, present = (torch.from_numpy(a).to(self.device) for a in (drawn.steps, drawn.present))
        with self.autocast():
            rate, mse = objective(self.model, pixels, steps, present)
        lam, beta = (torch.from_numpy(a).float().to(self.device) for a in (drawn.lam, drawn.beta))
        j = (beta * rate).sum(1) + lam * mse
        # J grows roughly like lambda^0.55; without that the mean over random lambdas is all noise.
        level = (j.detach() / lam**0.55).log().cpu()
        plain = torch.from_numpy((drawn.beta == 1).all(1) & (drawn.present[:, -1] != rates.OFF))
        log_j = level[plain].mean().item() if plain.any() else math.nan
        return j / self.norm(batch.lam, j.detach()), {"log_j": log_j}

    def norm(self, lam: np.ndarray, j: Tensor) -> Tensor:
        """What each example's J is divided by, so that all rates weigh alike: a mean of its own J
        and of the usual one at its lambda.

        Args:
            lam: of the whole batch.
            j: of this process's share.
        """
        low, high = LOG_LAMBDA
        bucket = ((np.log(lam) - low) / (high - low) * (BUCKETS - 1)).round().astype(int)
        for b, value in zip(bucket.tolist(), processes.gathered(j).log().tolist()):
            if not math.isfinite(value):
                continue
            seen = self.typical[b].item()
            self.typical[b] = value if seen == 0 else 0.98 * seen + 0.02 * value
        usual = self.typical[torch.from_numpy(bucket[processes.share()])].exp().to(j.device)
        return (usual + j) / 2

    def state(self) -> dict:
        return super().state() | {"typical": self.typical}

    def load(self) -> dict:
        state = super().load()
        self.typical = state["typical"].cpu()
        return state


def train(
    pictures: Path, folder: Path, recipe: Recipe, config: Config, init: Path | None = None
) -> Path:
    """Train on a folder of pictures; resume if `folder` holds a checkpoint. Returns its path.

    Args:
        pictures: searched at any depth.
        folder: of the run; made if it is not there.
        recipe, config: how to train, and what.
        init: model file to start from, of this configuration or a smaller one (`grow`).

    Raises:
        HvcError: no pictures found.
        UsageError: the folder holds a run of another network, seed or data.
        HvcError: training diverges.
        ModelError: `init` is not such a model.
    """
    prepare(pictures, folder)
    trainer = PhotoTrainer(folder, recipe, config)
    if (folder / "checkpoint.pt").exists():
        trainer.load()
    else:
        trainer.start(init)
    trainer.run()
    return folder / "checkpoint.pt"
