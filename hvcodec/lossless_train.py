"""Training of the lossless layer (`lossless_model.py`) over a model that is done."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import modelfile, processes
from . import steps as rates
from .errors import UsageError
from .ladder import LAYERS
from .lossless_model import Config, LosslessModel
from .model import Model, model_of
from .objective import coded
from .trainer import Recipe, Trainer, prepare

LOG_LAMBDA = (math.log(0.01), math.log(4.0))  # of the lossy part
TYPICAL = 3.0  # bits per sample; pictures that take more weigh less

RECIPE = Recipe(
    batch_pixels=32 * 192 * 192,
    crop=((0.0, 192),),
    decay=0.75,
    matrix_rate=0.01,
    rate=1.5e-3,
)


class LosslessTrainer(Trainer[LosslessModel]):
    """Minimises the bits that the pixels take, given what a model decodes at random rates."""

    def __init__(self, folder: Path, recipe: Recipe, config: Config, model: Path) -> None:
        torch.manual_seed(recipe.seed)
        super().__init__(folder, recipe, LosslessModel(config))
        self.base, self.base_id = model_of(model).to(self.device), modelfile.id_of(model)

    def state(self) -> dict:
        return super().state() | {"base": self.base_id}

    def load(self) -> dict:
        state = super().load()
        if state.get("base") != self.base_id:
            raise UsageError(f"{self.folder} holds a run over another model")
        return state

    def losses(
        self, pixels: Tensor, rng: np.random.Generator, count: int
    ) -> tuple[Tensor, dict[str, float]]:
        lam = np.exp(rng.uniform(*LOG_LAMBDA, count))[processes.share()]
        indices = [rates.step_indices(value, [1.0] * len(LAYERS)) for value in lam.tolist()]
        steps = torch.tensor(indices, device=self.device)
        with self.autocast():
            with torch.no_grad():
                shown = coded(self.base, pixels, steps, steps)[1].float()
            found = self.model(pixels + 128, shown + 128, Model.condition(steps))
        bits = found.sum(1) / pixels[0].numel()
        return bits / ((bits.detach() + TYPICAL) / 2), {"bits": bits.mean().item()}


def train(pictures: Path, folder: Path, recipe: Recipe, config: Config, model: Path) -> Path:
    """Train on a folder of pictures; resume if `folder` holds a checkpoint. Returns its path.

    Args:
        pictures, folder, recipe: see `train.train`.
        config: sizes of the network.
        model: file of the model whose decoded pictures are seen.

    Raises:
        HvcError: see `train.train`.
    """
    prepare(pictures, folder)
    trainer = LosslessTrainer(folder, recipe, config, model)
    if (folder / "checkpoint.pt").exists():
        trainer.load()
    trainer.run()
    return folder / "checkpoint.pt"
