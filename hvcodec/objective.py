"""The objective of the paper: rates of all layers and distortion of a batch, with their gradients."""

import torch
from torch import Tensor

from . import steps as rates
from .checkerboard import take
from .ladder import LAYERS, LAYERS_PER_LEVEL
from .likelihood import Prior, bits, wide_part
from .model import Model
from .quantise import BITS_PER_SQUARED_ERROR, quantise
from .refinement import LAYER_BOUNDS, REACH, Level, choose_digits, cost_of, digit_bits
from .transform import weave

UNSENT_WEIGHT = 0.5


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


def _refinement_inference(
    y: Tensor,
    waiting: Tensor,
    fresh: Tensor,
    mean: Tensor,
    log2_scale: Tensor,
    shape: Tensor,
    skew: Tensor,
    peak: Tensor,
    value: Tensor,
    delta: Tensor,
    tail: Tensor,
    falloff: Tensor,
    uniform: Tensor,
    bound: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One refinement layer of the inference model: its rate in bits, B; what is sent; symbols."""
    y, value = y.detach(), value.detach()
    # Fresh coefficients: as on the ladder.
    ratio, weight = wide_part(tail, shape)
    scale = torch.exp2(log2_scale) / delta
    target = (y - mean) / delta
    with torch.no_grad():
        symbols = quantise(target, scale, ratio, weight)
    cost = bits(symbols, scale, ratio, weight)
    smooth = bits(target + uniform - 0.5, scale.detach(), ratio.detach(), weight.detach())
    cost = cost + smooth - smooth.detach()
    # The others: thirds of their interval.
    costs = digit_bits(skew, peak, falloff)
    with torch.no_grad():
        digits = choose_digits((y - value) / delta, costs, BITS_PER_SQUARED_ERROR)
        nothing = bits(torch.zeros_like(symbols), scale, ratio, weight)
        sent = waiting & (torch.exp2(-torch.where(fresh, nothing, costs[REACH])) <= bound)
    cost = waiting * torch.where(fresh, cost, cost_of(digits, costs))
    # What is predicted of symbols that wait for a later layer decides that they wait: it costs nothing
    # here, but has to be learned all the same, or it drifts until nothing is sent before the last one.
    unsent = ~sent * cost
    cost = sent * cost + UNSENT_WEIGHT * (unsent - unsent.detach())
    return cost.sum((1, 2, 3)), sent, sent * torch.where(fresh, symbols, digits)


# Compiling these few element-wise functions brings most of what compiling everything would, in seconds
# in place of many minutes.
inference = torch.compile(_inference, dynamic=False)
refinement_inference = torch.compile(_refinement_inference, dynamic=False)


def objective(
    model: Model, pixels: Tensor, steps: Tensor, present: Tensor, refinements: int = 0
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
        refinements: refinement layers that follow.

    Returns:
        R: bits per pixel, B x (L + 1), the last for all refinement layers; zero for layers that are
            not present.
        MSE: in 8-bit units, averaged over R, G and B; B.
    """
    latents = model.analyse(pixels, steps)
    area = pixels.shape[2] * pixels.shape[3]
    totals = [torch.zeros(len(pixels), device=pixels.device) for _ in LAYERS]

    def choose(index: int, p: int, prior: Prior) -> Tensor:
        y = take(latents[index], p, LAYERS[index].passes)
        on = (present[:, index] != rates.OFF)[:, None, None, None]
        delta = model.delta(steps, index)
        cost, residual = inference(y, *prior, model.tail, delta, on, torch.rand_like(y))
        totals[index] = totals[index] + cost / area
        return residual

    found = model.descend(steps, present, pixels.shape[2], pixels.shape[3], choose)
    refined = [torch.zeros_like(totals[0])]
    if refinements:
        target = weave(latents)

        def refine(layer: int, known: Level) -> tuple[Tensor, Tensor]:
            cost, sent, symbols = refinement_inference(
                target,
                known.waiting,
                known.fresh,
                *known.prior,
                known.skew,
                known.peak,
                known.value,
                known.delta,
                model.tail,
                model.falloff,
                torch.rand_like(target),
                LAYER_BOUNDS[layer % LAYERS_PER_LEVEL],
            )
            refined.append(cost / area)
            return sent, symbols

        found, present = model.refine(found, steps, refinements, refine)
    picture = model.synthesise(found.values, found.trunk, present)
    totals.append(torch.stack(refined).sum(0))
    return torch.stack(totals, 1), (picture - pixels).square().mean((1, 2, 3))
