"""The objective of the paper: rates of all layers and distortion of a batch, with their gradients."""

import torch
from torch import Tensor

from . import steps as rates
from .checkerboard import at_place
from .ladder import LAYERS, Place
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


def objective(model: Model, pixels: Tensor, steps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Rates and distortion of a batch; J = sum_l beta_l R_l + lambda MSE is their weighted sum.

    Args:
        model, pixels, steps, present: see `coded`.

    Returns:
        R: see `coded`.
        MSE: in 8-bit units, averaged over R, G and B; B.
    """
    totals, picture = coded(model, pixels, steps, present)
    return totals, (picture - pixels).square().mean((1, 2, 3))


def coded(model: Model, pixels: Tensor, steps: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Rates and decoded pictures of a batch.

    R_l = E[-log2 P(z_l | z_>l)], in bits per pixel, is the KL of layer l between its posterior of
    unit width and its prior (Xiao & Bamler 2023, eq. 4, for quantised latents). Symbols are the
    quantised ones that will be coded, and so is the rate; its gradients reach scale and shape from
    these, but mean and transform from symbols with uniform noise, whose rate is smooth in them.

    Args:
        pixels: RGB minus 128, B x 3 x H x W.
        steps: step indices B x L.
        present: the same with `OFF` for layers that are cut away.

    Returns:
        R: bits per pixel, B x L; zero for layers that are not present.
        The pictures: as `pixels`, neither rounded nor clamped.
    """
    latents = model.analyse(pixels, steps)
    area = pixels.shape[2] * pixels.shape[3]
    totals = [torch.zeros(len(pixels), device=pixels.device) for _ in LAYERS]

    def choose(at: Place, prior: Prior) -> Tensor:
        index = at.layer
        y = at_place(latents[index], at)
        on = (present[:, index] != rates.OFF)[:, None, None, None]
        delta = model.delta(steps, index)
        cost, residual = inference(y, *prior, model.tail, delta, on, torch.rand_like(y))
        totals[index] = totals[index] + cost / area
        return residual

    found = model.descend(steps, present, pixels.shape[2], pixels.shape[3], choose)
    return torch.stack(totals, 1), model.synthesise(*found, present)
