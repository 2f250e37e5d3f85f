"""Packing: the positions of one pass of a layer, as a dense grid.

A layer with two passes is split over a checkerboard; pass p owns the positions whose row + column is
p modulo 2. Packed, they are a grid of the same height and half the width. A layer with one pass is
its own packed grid.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from .ladder import LAYERS, Place


def take(planes: Tensor, p: int, passes: int) -> Tensor:
    """The positions of pass p: B x C x H x W -> B x C x H x W/passes."""
    if passes == 1:
        return planes
    even, odd = planes[:, :, 0::2, p::2], planes[:, :, 1::2, 1 - p :: 2]
    return torch.stack([even, odd], 3).flatten(2, 3)


def at_place(planes: Tensor, at: Place) -> Tensor:
    """What is coded in one go: B x C x H x W of a layer -> B x channels x H x W/passes."""
    own = planes if len(at.channels) == planes.shape[1] else planes[:, list(at.channels)]
    return take(own, at.p, LAYERS[at.layer].passes)


def together(parts: Mapping[Place, Tensor]) -> Tensor:
    """All that is coded in one pass -> the pass, with channels in their order: B x C x H x W."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    channels = [channel for at in parts for channel in at.channels]
    order = sorted(range(len(channels)), key=channels.__getitem__)
    return torch.cat([*parts.values()], 1)[:, order]


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
