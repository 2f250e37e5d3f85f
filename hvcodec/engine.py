"""The network that encode and decode run, from a model file: pixels <-> symbols.

Encoder and decoder call the same code on the same shapes, one pass of one layer at a time, so the
priors that they see are the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import modelfile, tables, tuning
from .ans import Tables
from .checkerboard import take
from .errors import ModelError
from .ladder import LAYERS, LAYERS_PER_LEVEL, MAX_STRIDE
from .likelihood import Prior, wide_part
from .model import Config, Model
from .quantise import BITS_PER_SQUARED_ERROR, quantise
from .refinement import LAYER_BOUNDS, Level, choose_digits, digit_bits
from .steps import OFF
from .transform import weave

WORTH = [torch.full((1, 1, 1, 1), BITS_PER_SQUARED_ERROR)] * len(LAYERS)

Symbols = np.ndarray  # int32, one-dimensional: channels outermost, then rows, then columns


@dataclass
class Pass:
    """What is coded in one go: symbols and the tables they are coded under."""

    symbols: Symbols
    index: tables.Index


class Plan(NamedTuple):
    """How a refinement layer is coded: parameters that have tables, and what the layer sends.

    Attributes:
        level, shape: of fresh coefficients, as integers; 1 x 192 x H/8 x W/8.
        skew, peak: of the others, likewise.
        sent: bool, likewise.
        coded: tables of what is sent.
    """

    level: Tensor
    shape: Tensor
    skew: Tensor
    peak: Tensor
    sent: Tensor
    coded: tables.Index


class Found(NamedTuple):
    """What a run down the ladder, and its refinements, ends with.

    Attributes:
        values: per layer, coarse first.
        trunk: at stride 8.
        known: steps that the values are known to, 1 x L.
    """

    values: list[Tensor]
    trunk: Tensor
    known: Tensor


def pad(rgb: np.ndarray) -> Tensor:
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
    def analyse(self, rgb: np.ndarray, steps: list[int]) -> list[Tensor]:
        """Latents y of a picture (uint8, H x W x 3) for some steps, per layer, coarse first."""
        return self.model.analyse(pad(rgb), torch.tensor([steps[: len(LAYERS)]]))

    @staticmethod
    def _index(prior: Prior, delta: Tensor) -> tuple[Tensor, Tensor, tables.Index]:
        """Quantised scale, quantised shape (int16), and the tables that they mean."""
        level = tables.quantise_scale(prior.log2_scale - torch.log2(delta))
        shape = tables.quantise_shape(prior.shape)
        return level, shape, tables.index(level.numpy().ravel(), shape.numpy().ravel())

    @staticmethod
    def _residual(symbols: Symbols, prior: Prior, delta: Tensor) -> Tensor:
        """Symbols -> values minus the prior mean. Both sides make them from the same flat array: the
        memory layout of a tensor decides in which order a convolution adds, so it must be one too."""
        return torch.from_numpy(symbols).view(prior.mean.shape).float() * delta

    def _plan(self, layer: int, known: Level) -> Plan:
        level, shape, fresh = self._index(known.prior, known.delta)
        skew, peak, split = tables.quantise_split(known.skew, known.peak)
        which = known.fresh.numpy().ravel()
        table = np.where(which, fresh.table, split)
        bound = np.float32(LAYER_BOUNDS[layer % LAYERS_PER_LEVEL])
        sent = known.waiting.numpy().ravel() & (self.tables.zero[table] <= bound)
        coded = tables.Index(table[sent], (fresh.shift * which)[sent])
        return Plan(level, shape, skew, peak, torch.from_numpy(sent).view_as(known.fresh), coded)

    @staticmethod
    def _spread_out(symbols: Symbols, sent: Tensor) -> Tensor:
        """Symbols of a refinement layer where they belong, zero elsewhere."""
        planes = torch.zeros(sent.shape)
        planes[sent] = torch.from_numpy(symbols).float()
        return planes

    @torch.inference_mode()
    def encode(
        self,
        latents: list[Tensor],
        steps: list[int],
        weights: list[float],
        worth: Sequence[Tensor] = WORTH,
        goals: list[Tensor] | None = None,
    ) -> tuple[list[list[Pass]], Found]:
        """Choose all symbols.

        Args:
            latents: from `analyse`.
            steps: what the file says of each layer's step.
            weights: rate weight per layer.
            worth: bits that a squared error of one step is worth, for each of the ladder's layers,
                1 x 1 x H x W or 1 x 1 x 1 x 1.
            goals: what each level of refinement refines towards, 1 x 192 x H/8 x W/8; by default
                `latents`.

        Returns:
            The passes of every layer, coarse first, and what the decoder will find.
        """
        indices = torch.tensor([steps[: len(LAYERS)]])
        layers: list[list[Pass]] = [[] for _ in steps]

        def choose(index: int, p: int, prior: Prior) -> Tensor:
            if steps[index] == OFF:
                return torch.zeros_like(prior.mean)
            y = take(latents[index], p, LAYERS[index].passes)
            delta = self.model.delta(indices, index)
            level, shape, table = self._index(prior, delta)
            ratio, weight = wide_part(self.model.tail, shape / (tables.SHAPES - 1))
            target = (y - prior.mean) / delta
            silent = torch.from_numpy(self.tables.silent[table.table]).view_as(target)
            here = take(worth[index].expand_as(latents[index]), p, LAYERS[index].passes)
            chosen = quantise(target, tables.scale_of(level), ratio, weight, here) * ~silent
            symbols = chosen.to(torch.int32).numpy().ravel()
            layers[index].append(Pass(symbols, table))
            return self._residual(symbols, prior, delta)

        height, width = (n * LAYERS[-1].stride for n in latents[-1].shape[2:])
        found = self.model.descend(indices, indices, height, width, choose)
        if len(steps) == len(LAYERS):
            return layers, Found(found.values, found.trunk, indices)
        woven = weave(latents)
        worths = tuning.woven_worth(worth, weights, latents)

        def refine(layer: int, known: Level) -> tuple[Tensor, Tensor]:
            plan = self._plan(layer, known)
            y = goals[layer // LAYERS_PER_LEVEL] if goals else woven
            here = worths / weights[len(LAYERS) + layer]
            ratio, weight = wide_part(self.model.tail, plan.shape / (tables.SHAPES - 1))
            target = (y - known.prior.mean) / known.delta
            fresh = quantise(target, tables.scale_of(plan.level), ratio, weight, here)
            costs = digit_bits(plan.skew, plan.peak, self.model.falloff)
            digits = choose_digits((y - known.value) / known.delta, costs, here)
            chosen = torch.where(known.fresh, fresh, digits)[plan.sent]
            symbols = chosen.to(torch.int32).numpy() * ~self.tables.silent[plan.coded.table]
            layers[len(LAYERS) + layer].append(Pass(symbols, plan.coded))
            return plan.sent, self._spread_out(symbols, plan.sent)

        found, known = self.model.refine(found, indices, len(steps) - len(LAYERS), refine)
        return layers, Found(found.values, found.trunk, known)

    @torch.inference_mode()
    def decode(
        self,
        pop: Callable[[int, tables.Index], Symbols],
        steps: list[int],
        count: int,
        height: int,
        width: int,
    ) -> Found:
        """Run the decoder's side of `encode`.

        Args:
            pop: called as pop(layer, index) for each pass of each layer that is present.
            steps: what the file says of each layer's step.
            count: how many layers, coarse first, are present.
            height, width: of the picture.
        """
        indices = torch.tensor([steps[: len(LAYERS)]])
        present = torch.where(torch.arange(len(LAYERS)) < count, indices, OFF)

        def choose(index: int, p: int, prior: Prior) -> Tensor:
            if present[0, index] == OFF:
                return torch.zeros_like(prior.mean)
            delta = self.model.delta(indices, index)
            _, _, table = self._index(prior, delta)
            return self._residual(pop(index, table), prior, delta)

        height, width = (n + -n % MAX_STRIDE for n in (height, width))
        found = self.model.descend(indices, present, height, width, choose)
        if count <= len(LAYERS):
            return Found(found.values, found.trunk, present)

        def refine(layer: int, known: Level) -> tuple[Tensor, Tensor]:
            plan = self._plan(layer, known)
            symbols = pop(len(LAYERS) + layer, plan.coded)
            return plan.sent, self._spread_out(symbols, plan.sent)

        found, known = self.model.refine(found, indices, count - len(LAYERS), refine)
        return Found(found.values, found.trunk, known)

    @torch.inference_mode()
    def synthesise(self, found: Found, height: int, width: int) -> np.ndarray:
        """The picture, uint8 H x W x 3."""
        pixels = self.model.synthesise(*found)
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
