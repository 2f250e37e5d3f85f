"""The objective of the paper: rates of all layers and distortion of a batch, with their gradients."""

import torch
from torch import Tensor

from . import steps as rates
from .checkerboard import take
from .ladder import LAYERS
from .likelihood import Prior, bits, wide_part
from .model import Model
from .quantise import quantise


def _inference(
    y: Tensor,
    mean: Tensor,
    log2_scale: Tensor,
    shape: Tensor,
    tail: Tensor,
    delta: Tensor,
    on: Tensor,
    uniform: Tensor,
) -> tuple[Tensor, Tensor]:
    """One pass of the inference model, see `objective`: its rate in bits, B, and residual values."""
    ratio, weight = wide_part(tail, shape)
    scale = torch.exp2(log2_scale) / delta
    target = (y - mean) / delta
    with torch.no_grad():
        symbol = on * quantise(target, scale, ratio, weight)
    hard = bits(symbol, scale, ratio, weight)
    noisy = target + uniform - 0.5
    smooth = bits(noisy, scale.detach(), ratio.detach(), weight.detach())
    cost = on * (hard + smooth - smooth.detach())
    # For the mean the symbol is a constant, for the transform quantisation is the identity.
    return cost.sum((1, 2, 3)), on * (symbol * delta + (y - y.detach()))


# Compiling this element-wise function brings most of what compiling everything would, in seconds in
# place of many minutes.
inference = torch.compile(_inference, dynamic=False)


def _split(planes: Tensor, tiles: int) -> Tensor:
    """Squares of planes as examples of their own: B x C x H x W -> B t^2 x C x H/t x W/t."""
    b, c, h, w = planes.shape
    parts = planes.reshape(b, c, tiles, h // tiles, tiles, w // tiles).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(b * tiles**2, c, h // tiles, w // tiles).contiguous(
        memory_format=torch.channels_last
    )


def _join(parts: Tensor, tiles: int) -> Tensor:
    """The inverse of `_split`."""
    n, c, h, w = parts.shape
    planes = parts.reshape(n // tiles**2, tiles, tiles, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return planes.reshape(n // tiles**2, c, tiles * h, tiles * w).contiguous(
        memory_format=torch.channels_last
    )


def objective(
    model: Model, pixels: Tensor, steps: Tensor, present: Tensor, tiles: int = 1
) -> tuple[Tensor, Tensor]:
    """Rates and distortion of a batch; J = sum_l beta_l R_l + lambda MSE is their weighted sum.

    R_l = E[-log2 P(z_l | z_>l)], in bits per pixel, is the KL of layer l between its posterior of
    unit width and its prior (Xiao & Bamler 2023, eq. 4, for quantised latents). Symbols are the
    quantised ones that will be coded, and so is the rate; its gradients reach scale and shape from
    these, but mean and transform from symbols with uniform noise, whose rate is smooth in them.

    Args:
        pixels: RGB minus 128, B x 3 x H x W.
        steps: step indices B x L.
        present: the same with `OFF` for layers that are cut away.
        tiles: along each side; the latents of every tile depend on nothing outside it.

    Returns:
        R: bits per pixel, B x L; zero for layers that are not present.
        MSE: in 8-bit units, averaged over R, G and B; B.
    """
    latents = [_split(y, tiles) for y in model.analyse(pixels, steps)]
    area = pixels.shape[2] * pixels.shape[3]
    totals = [torch.zeros(len(pixels), device=pixels.device) for _ in LAYERS]
    coded, known = (s.repeat_interleave(tiles**2, 0) for s in (steps, present))

    def choose(index: int, p: int, prior: Prior) -> Tensor:
        y = take(latents[index], p, LAYERS[index].passes)
        on = (known[:, index] != rates.OFF)[:, None, None, None]
        delta = model.delta(coded, index)
        cost, residual = inference(y, *prior, model.tail, delta, on, torch.rand_like(y))
        totals[index] = totals[index] + cost.reshape(len(pixels), -1).sum(1) / area
        return residual

    height, width = (n // tiles for n in pixels.shape[2:])
    values, trunk = model.descend(coded, known, height, width, choose)
    joined = [_join(v, tiles) for v in values]
    picture = model.synthesise(joined, _join(trunk, tiles), present)
    return torch.stack(totals, 1), (picture - pixels).square().mean((1, 2, 3))
