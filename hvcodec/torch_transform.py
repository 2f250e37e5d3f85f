"""The transform of `transform.py` for training, in PyTorch: differentiable, in batches.

Planes are float32 tensors B x C x H x W; pixels are RGB minus 128, so -128 .. 127.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ladder import LAYERS
from .transform import BLOCK, COLOUR, OVERLAP, block_basis


def haar(planes: Tensor) -> tuple[Tensor, Tensor]:
    """One orthonormal 2x2 Haar step: B x C x 2H x 2W -> means B x C x H x W, details B x 3C x H x W."""
    a, b, c, d = (planes[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
    details = torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2
    return (a + b + c + d) / 2, details


def unhaar(means: Tensor, details: Tensor) -> Tensor:
    """The inverse of `haar`."""
    h, v, x = details.chunk(3, 1)
    a, b = (means + h + v + x) / 2, (means - h + v - x) / 2
    c, d = (means + h - v - x) / 2, (means - h - v + x) / 2
    top, bottom = torch.stack([a, b], -1).flatten(-2), torch.stack([c, d], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2)


def rotate_borders(planes: Tensor, rotations: Tensor, dim: int) -> Tensor:
    """Rotate the 8 pixels around every inner block border along a dimension (2: down, 3: across).

    Args:
        planes: B x C x H x W.
        rotations: C x 8 x 8, orthogonal; the transposed ones undo it.
    """
    lines = planes.movedim(dim, 3).contiguous()
    inner = lines[..., OVERLAP:-OVERLAP].unflatten(3, (-1, BLOCK))
    turned = (inner @ rotations.mT[:, None]).flatten(3)
    lines = torch.cat([lines[..., :OVERLAP], turned, lines[..., -OVERLAP:]], 3)
    return lines.movedim(3, dim)


class Transform(nn.Module):
    """Learned lapped transform between pixels and the coefficients of every layer."""

    basis: Tensor
    colour: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Logarithms of the rotations: of the three planes down, then of the three planes across.
        self.rotations = nn.Parameter(torch.zeros(6, BLOCK, BLOCK))
        self.register_buffer("basis", torch.from_numpy(block_basis()).float(), persistent=False)
        self.register_buffer("colour", torch.from_numpy(COLOUR).float(), persistent=False)

    def blocks(self, pixels: Tensor) -> Tensor:
        """Pixels B x 3 x H x W (H, W multiples of 64) -> coefficients B x 192 x H/8 x W/8, DC first."""
        planes = F.conv2d(pixels, self.colour[:, :, None, None])
        down, across = self.turns().chunk(2)
        planes = rotate_borders(rotate_borders(planes, down, 2), across, 3)
        return F.conv2d(F.pixel_unshuffle(planes, BLOCK), self.basis[:, :, None, None])

    @staticmethod
    def split(planes: Tensor) -> list[Tensor]:
        """Coefficients as `blocks` gives them -> per layer, coarse first."""
        means, bands = planes[:, :3], planes[:, 3:]
        fine = list(bands.split([layer.channels for layer in LAYERS[3:]], 1))
        coarse: list[Tensor] = []
        for _ in range(3):
            means, details = haar(means)
            coarse.insert(0, details)
        coarse[0] = torch.cat([means, coarse[0]], 1)
        return coarse + fine

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Pixels B x 3 x H x W (H, W multiples of 64) -> coefficients per layer, coarse first."""
        return self.split(self.blocks(pixels))

    def turns(self) -> Tensor:
        """Rotations of the three planes down, then of the three planes across; 6 x 8 x 8."""
        return torch.matrix_exp(self.rotations - self.rotations.mT)

    def inverse(self, coefficients: list[Tensor]) -> Tensor:
        """Coefficients per layer, coarse first -> pixels B x 3 x H x W, not clamped."""
        means = unhaar(coefficients[0][:, :3], coefficients[0][:, 3:])
        for details in coefficients[1:3]:
            means = unhaar(means, details)
        planes = torch.cat([means, *coefficients[3:]], 1)
        planes = F.pixel_shuffle(F.conv2d(planes, self.basis.T[:, :, None, None]), BLOCK)
        down, across = self.turns().mT.chunk(2)
        planes = rotate_borders(rotate_borders(planes, across, 3), down, 2)
        return F.conv2d(planes, self.colour.T[:, :, None, None])
