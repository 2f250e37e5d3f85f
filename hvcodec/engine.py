"""The network that encode and decode run, from a model file: pixels <-> symbols.

Encoder and decoder call the same code on the same shapes, one pass of one layer at a time, so the
priors that they see are the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import modelfile, tables
from .ans import Tables
from .checkerboard import take
from .errors import ModelError
from .ladder import LAYERS, MAX_STRIDE
from .likelihood import wide_part
from .model import Config, Model, Prior
from .quantise import quantise
from .steps import OFF

Symbols = np.ndarray  # int32, one-dimensional: channels outermost, then rows, then columns


@dataclass
class Pass:
    """One coded pass of one layer: its symbols and the tables they are coded under."""

    symbols: Symbols
    index: tables.Index


@dataclass
class Found:
    """What a run down the ladder ends with: values per layer, and the trunk at stride 8."""

    values: list[Tensor]
    trunk: Tensor


def _pad(rgb: np.ndarray) -> Tensor:
    """uint8 H x W x 3 -> float32 1 x 3 x H' x W' minus 128, sides multiples of 64."""
    pixels = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] - 128
    below, right = (-n % MAX_STRIDE for n in rgb.shape[:2])
    return F.pad(pixels, (0, right, 0, below), mode="replicate")


class Engine:
    """A loaded model.

    Attributes:
        id: the model's id, 12 hexadecimal digits.
        tables: its probability tables.
    """

    def __init__(self, path: Path) -> None:
        """Raises ModelError if the file is not a model of this version."""
        card, tensors = modelfile.card(path), modelfile.tensors(path)
        self.id = modelfile.identify(path.read_bytes())
        try:
            self.tables = Tables(
                *(tensors.pop(f"tables.{part}").numpy() for part in ("counts", "reaches"))
            )
            self.model = Model(Config.from_dict(card["config"]))
            self.model.load_state_dict({k: v.float() for k, v in tensors.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{path.name} does not fit this version of hvcodec: {error}") from None
        self.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def analyse(self, rgb: np.ndarray) -> list[Tensor]:
        """Latents y of a picture (uint8, H x W x 3), per layer, coarse first."""
        return self.model.transform(_pad(rgb))

    def _levels(self, prior: Prior, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised scale and shape, int16."""
        return (
            tables.quantise_scale(prior.log2_scale - torch.log2(delta)),
            tables.quantise_shape(prior.shape),
        )

    @staticmethod
    def _residual(symbols: Symbols, prior: Prior, delta: Tensor) -> Tensor:
        """Symbols -> values minus the prior mean. Both sides make them from the same flat array: the
        memory layout of a tensor decides in which order a convolution adds, so it must be one too."""
        return torch.from_numpy(symbols).view(prior.mean.shape).float() * delta

    @torch.inference_mode()
    def encode(self, latents: list[Tensor], steps: list[int]) -> tuple[list[list[Pass]], Found]:
        """Choose all symbols.

        Args:
            latents: from `analyse`.
            steps: step index per layer.

        Returns:
            The passes of every layer, coarse first, and what the decoder will find.
        """
        indices = torch.tensor([steps])
        layers: list[list[Pass]] = [[] for _ in LAYERS]

        def choose(index: int, p: int, prior: Prior) -> Tensor:
            if steps[index] == OFF:
                return torch.zeros_like(prior.mean)
            y = take(latents[index], p, LAYERS[index].passes)
            delta = self.model.delta(indices, index)
            level, shape = self._levels(prior, delta)
            ratio, weight = wide_part(self.model.tail, shape / (tables.SHAPES - 1))
            table = tables.index(level.numpy().ravel(), shape.numpy().ravel())
            target = (y - prior.mean) / delta
            silent = torch.from_numpy(self.tables.silent[table.table]).view_as(target)
            chosen = quantise(target, tables.scale_of(level), ratio, weight) * ~silent
            symbols = chosen.to(torch.int32).numpy().ravel()
            layers[index].append(Pass(symbols, table))
            return self._residual(symbols, prior, delta)

        height, width = (n * LAYERS[-1].stride for n in latents[-1].shape[2:])
        values, trunk = self.model.descend(indices, indices, height, width, choose)
        return layers, Found(values, trunk)

    @torch.inference_mode()
    def decode(
        self,
        pop: Callable[[int, tables.Index], Symbols],
        steps: list[int],
        present: list[int],
        height: int,
        width: int,
    ) -> Found:
        """Run the decoder's side of `encode`.

        Args:
            pop: called as pop(layer, index) for each pass of each layer that is present.
            steps: step index per layer, as coded.
            present: the same, `OFF` for layers that the stream was cut before.
            height, width: of the picture.
        """
        indices = torch.tensor([steps])

        def choose(index: int, p: int, prior: Prior) -> Tensor:
            if present[index] == OFF:
                return torch.zeros_like(prior.mean)
            delta = self.model.delta(indices, index)
            level, shape = self._levels(prior, delta)
            table = tables.index(level.numpy().ravel(), shape.numpy().ravel())
            return self._residual(pop(index, table), prior, delta)

        height, width = (n + -n % MAX_STRIDE for n in (height, width))
        values, trunk = self.model.descend(indices, torch.tensor([present]), height, width, choose)
        return Found(values, trunk)

    @torch.inference_mode()
    def synthesise(self, found: Found, present: list[int], height: int, width: int) -> np.ndarray:
        """The picture, uint8 H x W x 3."""
        pixels = self.model.synthesise(found.values, found.trunk, torch.tensor([present]))
        pixels = (pixels[0, :, :height, :width] + 128).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(1, 2, 0).contiguous().numpy()


@lru_cache(maxsize=2)
def _load(path: Path, _modified: int, _size: int) -> Engine:
    return Engine(path)


def load(path: Path) -> Engine:
    """The engine of a model file, kept for the next call unless the file changes.

    Raises:
        ModelError: not a model of this version.
    """
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)
