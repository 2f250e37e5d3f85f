"""Pixels <-> coefficients: the linear transform that the hierarchical VAE is lifted onto.

RGB pixels become, through an orthonormal colour rotation and an 8x8 lapped transform, 192 coefficients
per 8x8 block; the three DC planes go on through three 2x2 Haar steps to strides 16, 32 and 64.

The lapped transform is the DCT-II after a learned rotation of the 8 pixels around every block border
(4 on each side), along rows and columns (Tran, Liang & Tu, "Lapped transform via time-domain pre- and
post-filtering", 2003). It is orthonormal whatever is learned: squared error in coefficients is squared
error in pixels, and nothing is lost at high rates. It starts at the plain DCT.

Planes are float32 tensors B x C x H x W; pixels are RGB minus 128, so -128 .. 127.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ladder import LAYERS, frequency_bands

BLOCK = 8
OVERLAP = 4

# Orthonormal rows: brightness, red-green, yellow-blue.
COLOUR = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
COLOUR = COLOUR / COLOUR.norm(dim=1, keepdim=True)


def dct_matrix(n: int = BLOCK) -> Tensor:
    """The orthonormal DCT-II matrix, n x n float32, one basis vector per row."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis.float()


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


def weave(layers: list[Tensor]) -> Tensor:
    """One number per coefficient, in layers (coarse first, B x C x h x w) -> B x 192 x H/8 x W/8.

    The first three planes hold the layers above stride 8 as a wavelet transform is usually stored in
    place: the details of 2x2 positions beside their mean, and so on for the means.
    """
    means, details = layers[0][:, :3], [layers[0][:, 3:], *layers[1:3]]
    for d in details:
        means = F.pixel_shuffle(torch.stack([means, *d.chunk(3, 1)], 2).flatten(1, 2), 2)
    return torch.cat([means, *layers[3:]], 1)


def unweave(planes: Tensor) -> list[Tensor]:
    """The inverse of `weave`."""
    means = planes[:, :3]
    details: list[Tensor] = []
    for _ in range(3):
        parts = F.pixel_unshuffle(means, 2).unflatten(1, (3, 4))
        means = parts[:, :, 0]
        details.insert(0, parts[:, :, 1:].transpose(1, 2).flatten(1, 2))
    coarse = [torch.cat([means, details[0]], 1), *details[1:]]
    return coarse + list(planes[:, 3:].split([layer.channels for layer in LAYERS[3:]], 1))


def block_basis() -> Tensor:
    """Basis of 8x8 blocks, 192 x 192: rows are coefficients in the order of the ladder (three DC, then
    the bands of z4 .. z1), columns are plane x row x column of the block."""
    dct = dct_matrix()
    order = [(plane, 0, 0) for plane in range(3)] + [c for band in frequency_bands() for c in band]
    basis = torch.zeros(len(order), 3, BLOCK, BLOCK)
    for i, (plane, down, across) in enumerate(order):
        basis[i, plane] = torch.outer(dct[down], dct[across])
    return basis.flatten(1)


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
        self.register_buffer("basis", block_basis(), persistent=False)
        self.register_buffer("colour", COLOUR.clone(), persistent=False)

    def blocks(self, pixels: Tensor) -> Tensor:
        """Pixels B x 3 x H x W (H, W multiples of 64) -> coefficients B x 192 x H/8 x W/8, DC first."""
        planes = F.conv2d(pixels, self.colour[:, :, None, None])
        down, across = torch.matrix_exp(self.rotations - self.rotations.mT).chunk(2)
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

    def inverse(self, coefficients: list[Tensor]) -> Tensor:
        """Coefficients per layer, coarse first -> pixels B x 3 x H x W, not clamped."""
        means = unhaar(coefficients[0][:, :3], coefficients[0][:, 3:])
        for details in coefficients[1:3]:
            means = unhaar(means, details)
        planes = torch.cat([means, *coefficients[3:]], 1)
        planes = F.pixel_shuffle(F.conv2d(planes, self.basis.T[:, :, None, None]), BLOCK)
        down, across = torch.matrix_exp(self.rotations.mT - self.rotations).chunk(2)
        planes = rotate_borders(rotate_borders(planes, across, 3), down, 2)
        return F.conv2d(planes, self.colour.T[:, :, None, None])
