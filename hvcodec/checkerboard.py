"""Packing: the positions of one pass of a layer, as a dense grid.

A layer with two passes is split over a checkerboard; pass p owns the positions whose row + column is
p modulo 2. Packed, they are a grid of the same height and half the width. A layer with one pass is
its own packed grid.
"""

import torch
from torch import Tensor


def take(planes: Tensor, p: int, passes: int) -> Tensor:
    """The positions of pass p: B x C x H x W -> B x C x H x W/passes."""
    if passes == 1:
        return planes
    even, odd = planes[:, :, 0::2, p::2], planes[:, :, 1::2, 1 - p :: 2]
    return torch.stack([even, odd], 3).flatten(2, 3)


def merge(parts: list[Tensor]) -> Tensor:
    """The inverse of `take` for all passes: [B x C x H x W/passes] -> B x C x H x W."""
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    even = torch.stack([first[:, :, 0::2], second[:, :, 0::2]], -1).flatten(-2)
    odd = torch.stack([second[:, :, 1::2], first[:, :, 1::2]], -1).flatten(-2)
    return torch.stack([even, odd], 3).flatten(2, 3)


def place(part: Tensor, p: int, passes: int) -> Tensor:
    """`part` at the positions of pass p, zero elsewhere: B x C x H x W/passes -> B x C x H x W."""
    return merge([part if k == p else torch.zeros_like(part) for k in range(passes)])
