"""The lossless layer as it is trained, in PyTorch; `lossless.py` is the same one as it runs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .likelihood import bits, bounded, wide_part
from .lossless import (
    COLOURS,
    MEAN_UNIT,
    OUTPUTS,
    POSITIONS,
    SCALE_SHIFT,
    SHARES,
    SURPRISE_MAX,
    SURPRISE_UNIT,
)
from .lossless_tables import HIGHEST, LOWEST
from .model import Block, Pointwise, Sizes


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of the network.

    Attributes:
        width: channels at stride 2.
        expansion: hidden channels of a block per channel.
        blocks: residual blocks before each pass.
    """

    width: int = 96
    expansion: int = 2
    blocks: tuple[int, int, int, int] = (3, 3, 3, 3)


class Pass(nn.Module):
    """Blocks, the head that says how the pixels of a pass are distributed, and their way back."""

    def __init__(self, width: int, expansion: int, blocks: int, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, expansion) for _ in range(blocks))
        self.head = Pointwise(width, OUTPUTS, zero=True)
        if not last:
            self.absorb = Pointwise(2 * len(COLOURS), width)


class LosslessModel(nn.Module):
    """p(x | decoded picture), over four passes of pixels and three colours in each."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.into = Pointwise(24, config.width)
        self.passes = nn.ModuleList(
            Pass(config.width, config.expansion, count, p == len(POSITIONS) - 1)
            for p, count in enumerate(config.blocks)
        )
        # Tail shapes, as in `model.py`.
        self.tail = nn.Parameter(torch.tensor([[1.0, -1.0], [2.5, -1.0]]))

    def forward(self, pixels: Tensor, shown: Tensor, condition: Tensor) -> Tensor:
        """Bits of each example in each pass.

        Args:
            pixels: 0..255, B x 3 x H x W, sides even.
            shown: the picture decoded without this layer, not rounded; of the same shape.
            condition: features of the steps (`Model.condition`).

        Returns:
            B x 4.
        """
        shown = shown.clamp(0, 255)
        levels = torch.floor(shown + 0.5)
        fractions = F.pixel_unshuffle(shown - levels, 2)
        differences = F.pixel_unshuffle(pixels - levels, 2)
        seen = torch.cat([F.pixel_unshuffle(levels - 128, 2) / 64, fractions], 1)
        h = self.into(seen.contiguous(memory_format=torch.channels_last))
        totals = []
        for own, (i, j) in zip(self.passes, POSITIONS):
            for block in own.blocks:  # type: ignore[union-attr]
                h = block(h, condition)
            # Planes of one colour after another, each with the four pixels of 2x2.
            planes = [4 * colour + 2 * i + j for colour in COLOURS]
            here, start = differences[:, planes], fractions[:, planes]
            totals.append(cost(own.head(h).float(), here, start, self.tail).sum((1, 2)))  # type: ignore[operator]
            if hasattr(own, "absorb"):
                logs = here.sign() * torch.log2(1 + here.abs()) / 2
                h = h + own.absorb(torch.cat([(here / 8).clamp(-8, 8), logs], 1))  # type: ignore[operator]
        return torch.stack(totals, 1)


def cost(out: Tensor, differences: Tensor, fractions: Tensor, tail: Tensor) -> Tensor:
    """Bits of one pass.

    Args:
        out: of a head, B x OUTPUTS x H x W.
        differences: pixels minus nearest decoded levels, colours in the order of coding; B x 3 x H x W.
        fractions: what the decoded pixels are above these levels, likewise.
        tail: see `likelihood.wide_part`.

    Returns:
        B x H x W.
    """
    total = torch.zeros_like(differences[:, 0])
    errors: list[Tensor] = []
    surprises: list[Tensor] = []
    for k in range(len(COLOURS)):
        mean = out[:, k] * MEAN_UNIT + fractions[:, k]
        log2_scale = out[:, 3 + k] + SCALE_SHIFT
        for n, (source, target, share) in enumerate(SHARES):
            if target == k:
                mean = mean + (out[:, 9 + n] + share) * errors[source]
                log2_scale = log2_scale + out[:, 12 + n] * SURPRISE_UNIT * surprises[source]
        scale = torch.exp2(bounded(log2_scale, LOWEST, HIGHEST))
        error = differences[:, k] - mean
        shape = bounded(out[:, 6 + k] + 0.5, 0, 1)
        total = total + bits(error, scale, *wide_part(tail, shape))
        errors.append(error)
        surprises.append(torch.log2(1 + error.abs() / scale).clamp(max=SURPRISE_MAX))
    return total
