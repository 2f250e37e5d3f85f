"""The paper's objective: distortion and one rate per layer, D + sum_l beta_l R_l.

D = E[-ln p(x | z)] and R_l = E KL[q(z_l | z_>l, x) || p(z_l | z_>l)], coarse first, in nats per picture
(Xiao & Bamler 2023). Divergences are analytic, given one sample of what is above. With all beta at 1
this is the negative ELBO, with equal beta the objective of a beta-VAE (Higgins et al., ICLR 2017).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from .models import BottomUp, Gaussian, Hierarchy

Draw = Callable[[Gaussian], Tensor]


class Step(NamedTuple):
    """One layer of the walk down: its latent, posterior and prior."""

    z: Tensor
    posterior: Gaussian
    prior: Gaussian


class Losses(NamedTuple):
    """Of a batch, in nats.

    Attributes:
        distortion: B.
        rates: B x L, coarse first.
    """

    distortion: Tensor
    rates: Tensor

    def weighted(self, beta: Tensor) -> Tensor:
        """D + sum_l beta_l R_l; beta is L or B x L, the result B."""
        return self.distortion + (beta * self.rates).sum(1)


def infer(
    model: Hierarchy, x: Tensor, setting: Tensor | None = None, draw: Draw = Gaussian.sample
) -> list[Step]:
    """Latents of pictures from the top down; `draw` picks each from its posterior."""
    seen = model.observe(x, setting)
    steps: list[Step] = []
    for _ in range(model.layers):
        above = [step.z for step in steps]
        q = model.posterior(above, seen, setting)
        steps.append(Step(draw(q), q, model.prior(above, len(x), setting)))
    return steps


def complete(
    model: Hierarchy, above: list[Tensor], count: int, setting: Tensor | None = None
) -> list[Tensor]:
    """All latents, those that are missing at the mean of their prior: what a cut file is decoded
    from."""
    latents = list(above)
    while len(latents) < model.layers:
        latents.append(model.prior(latents, count, setting).mean)
    return latents


def losses(
    model: Hierarchy,
    x: Tensor,
    setting: Tensor | None = None,
    layers: int | None = None,
    draw: Draw = Gaussian.sample,
) -> Losses:
    """Distortion and rates of a batch.

    Args:
        x: B x planes x side x side, in [0, 1].
        setting: ln beta, for an amortised model.
        layers: how many layers are sent, all by default; the rates of the others are 0, and the picture
            is made without them.
        draw: how latents are picked from their posteriors.

    Raises:
        UsageError: the model has not that many layers, or is bottom-up and cannot be cut.
    """
    if isinstance(model, BottomUp):
        if layers is not None:
            raise UsageError("a bottom-up model cannot be cut")
        return _bottom_up(model, x, setting, draw)
    steps = infer(model, x, setting, draw)
    sent = model.layers if layers is None else layers
    if not 0 <= sent <= model.layers:
        raise UsageError(f"the model has {model.layers} layers")
    latents = complete(model, [step.z for step in steps[:sent]], len(x), setting)
    rates = [step.posterior.divergence(step.prior) for step in steps[:sent]]
    rates += [torch.zeros_like(rates[0] if rates else x[:, 0, 0, 0])] * (model.layers - sent)
    return Losses(model.distortion(model.picture(latents, setting), x), torch.stack(rates, 1))


def _bottom_up(model: BottomUp, x: Tensor, setting: Tensor | None, draw: Draw) -> Losses:
    """The only split there is: KL[q(z_2 | z_1) || p(z_2)] and a sample of ln q(z_1 | x) - ln p(z_1 |
    z_2).

    The second is no divergence and may be negative: I_q(z_1; z_2 | x) is charged to the wrong layer.
    """
    q = model.posterior([], model.observe(x, setting), setting)
    fine = draw(q)
    above = model.coarse(fine, setting)
    coarse = draw(above)
    rate = q.log_density(fine) - model.prior([coarse], len(x), setting).log_density(fine)
    rates = torch.stack([above.divergence(model.prior([], len(x))), rate], 1)
    return Losses(model.distortion(model.picture([coarse, fine], setting), x), rates)
