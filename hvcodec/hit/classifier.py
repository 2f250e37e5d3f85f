"""The classifier of pictures that samples and reconstructions are judged by, trained here."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn
from tqdm import tqdm

from .. import files
from ..exact import Array
from .data import Data, Split

BATCH, RATE, DECAY = 128, 2e-3, 1e-4
EPOCHS = {1: 4, 3: 12}  # by the number of planes


class Classifier(nn.Sequential):
    """Three strided convolutions and a linear layer: pictures in [0, 1] -> 10 logits."""

    def __init__(self, planes: int, width: int = 32) -> None:
        maps = [planes, width, 2 * width, 4 * width]
        super().__init__()
        for a, b in zip(maps, maps[1:]):
            self.extend([nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()])
        self.extend([nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * width, 10)])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Array:
        """p(y | x), float64 N x 10."""
        parts = [self(part).double().softmax(1) for part in x.split(1000)]
        return torch.cat(parts).numpy()


def _train(data: Split, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    planes = data.x.shape[1]
    model = Classifier(planes)
    steps = max(EPOCHS[planes] * len(data.x) // BATCH, 1)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2 * RATE, total_steps=steps)
    for _ in tqdm(range(steps), desc="classifier"):
        index = rng.integers(len(data.x), size=BATCH)
        x = data.batch(index)
        if planes == 3 and rng.random() < 0.5:
            x = x.flip(3)
        loss = F.cross_entropy(model(x), torch.from_numpy(data.labels[index]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def classifier(name: str, data: Data, folder: Path) -> Classifier:
    """The classifier for a set of pictures, trained if it is not in the folder yet."""
    path = folder / f"classifier-{name}.safetensors"
    if not path.exists():
        trained = _train(data.train).state_dict()
        files.write(path, save({k: v.contiguous() for k, v in trained.items()}))
    model = Classifier(data.train.x.shape[1])
    model.load_state_dict(load_file(path))
    return model.eval()
