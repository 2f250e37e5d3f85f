"""Checks A1 to A6: what must hold exactly, for models with any weights."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checks import Check
from .models import COLOUR, MNIST, TINY, Gaussian, Hierarchy, Preset, load, make, save
from .objective import infer, losses
from .theory import accuracy_bound, distortion_bound, information_needed
from .toy import random_toy

SAMPLES = 100  # of z for each x
TOYS = 200
SIZES = (("free", COLOUR, 475811), ("free", MNIST, 122713), ("ladder", COLOUR, 408131))  # official code
# f^-1(I) for 10 classes: uniform labels, and those of the SVHN test set.
TABLE = (
    (math.log(10), ((0, 0.1), (0.25, 0.364), (0.5, 0.495), (1, 0.689), (1.5, 0.837), (2, 0.951))),
    (2.2226, ((0, 0.2385), (1, 0.715), (2, 0.966))),
)


def models() -> list[Hierarchy]:
    """One of every family and number of layers, tiny, with random weights away from their start."""
    found = []
    torch.manual_seed(0)
    for family in ("free", "ladder", "general"):
        for layers in (2, 3):
            model = make(family, TINY.with_layers(layers))
            with torch.no_grad():
                for weights in model.parameters():
                    weights.mul_(1.5)
            found.append(model)
    return found


def pictures(count: int) -> Tensor:
    """Random blobs, binary, N x 1 x 28 x 28."""
    generator = torch.Generator().manual_seed(1)
    small = torch.rand(count, 1, 7, 7, generator=generator)
    return torch.nn.functional.interpolate(small, 28, mode="bilinear").gt(0.55).float()


def rates_add_up(model: Hierarchy, x: Tensor) -> tuple[float, float]:
    """Relative difference of sum_l R_l and E ln q(z | x) / p(z) on the same samples; least rate."""
    analytic = joint = 0.0
    least = math.inf
    for _ in range(SAMPLES):
        steps = infer(model, x)
        rates = torch.stack([s.posterior.divergence(s.prior) for s in steps])
        analytic += float(rates.double().sum())
        joint += sum(
            float((s.posterior.log_density(s.z) - s.prior.log_density(s.z)).double().sum())
            for s in steps
        )
        least = min(least, float(rates.min()))
    return abs(analytic / joint - 1), least


def objective_is_elbo(model: Hierarchy, x: Tensor) -> float:
    """Largest relative error of L at beta = 1 against -ELBO, at beta = c against a beta-VAE's, and of
    its gradient in beta against the rates."""
    torch.manual_seed(3)
    found = losses(model, x)
    torch.manual_seed(3)
    steps = infer(model, x)
    z = [s.z for s in steps]
    rate = torch.stack([s.posterior.divergence(s.prior) for s in steps]).sum(0)
    distortion = model.distortion(model.picture(z), x)
    errors = []
    for c in (1.0, 0.3, 4.0):
        beta = torch.full((model.layers,), c, requires_grad=True)
        total = found.weighted(beta).sum()
        vae = (distortion + c * rate).sum()
        (slope,) = torch.autograd.grad(total, beta, retain_graph=True)
        errors.append(float((total / vae - 1).abs().detach()))
        errors.append(float((slope / found.rates.sum(0) - 1).abs().max().detach()))
    return max(errors)


def sees_no_lower_layer(model: Hierarchy, x: Tensor) -> bool:
    """Whether q(z_l | .) stays the same to the last bit when z_l and what is below it change."""
    for layer in range(model.layers):
        walks = []
        for below in (1.0, 5.0):
            torch.manual_seed(4)
            factors = iter([1.0] * layer + [below] * (model.layers - layer))

            def draw(q: Gaussian, factors: Iterator[float] = factors) -> Tensor:
                return next(factors) * q.sample()

            walks.append(infer(model, x, draw=draw))
        for a, b in zip(*(walk[: layer + 1] for walk in walks)):
            if not all(torch.equal(p, q) for p, q in zip(a.posterior, b.posterior)):
                return False
    return True


def identities(seed: int = 0) -> tuple[float, float, float, float]:
    """On enumerable models: error of the identities for rates; by how much H - D <= I(x; z_1)
    <= I(x; z) <= R are broken, and H - D <= R(z_2) of a cut after z_2; the identities' error for
    bottom-up posteriors beside I_q(z_1; z_2 | x); share of bottom-up models whose fine layer has
    negative information."""
    rng = np.random.default_rng(seed)
    split = control = broken = 0.0
    negative = 0
    for _ in range(TOYS):
        toy = random_toy(rng)
        whole, coarse = toy.divergence("21"), toy.divergence("2")
        split = max(
            split,
            abs(whole - toy.information("21") - toy.mismatch("21")),
            abs(coarse - toy.information("2") - toy.mismatch("2")),
            abs(whole - coarse - toy.information("1", "2") - toy.mismatch("1")),
        )
        told = toy.information("1"), toy.information("21")
        chain = [toy.entropy - toy.distortion, *told, whole]
        broken = max(broken, *(a - b for a, b in zip(chain, chain[1:])))
        broken = max(broken, distortion_bound(toy.entropy, np.array([coarse])) - toy.distortion_of_cut)
        toy = random_toy(rng, bottom_up=True)
        control = max(control, abs(toy.charged - toy.information("2") - toy.mismatch("2") - toy.noise))
        negative += toy.information("1", "2") - toy.noise < 0
    return split, broken, control, negative / TOYS


def closed_form(count: int = 200_000) -> float:
    """Divergence of two Gaussians against sampling, in standard errors."""
    torch.manual_seed(5)
    q = Gaussian(torch.randn(1, 4), torch.rand(1, 4) + 0.3)
    p = Gaussian(torch.randn(1, 4), torch.rand(1, 4) + 0.3)
    many = Gaussian(q.mean.expand(count, -1), q.scale.expand(count, -1))
    z = many.sample()
    ratio = (q.log_density(z) - p.log_density(z)).double()
    return float((ratio.mean() - q.divergence(p)).abs() / (ratio.std() / count**0.5))


def bounds() -> float:
    """f^-1 against values that were computed elsewhere, against f, and at its ends; the largest
    error."""
    errors = [abs(accuracy_bound(i, 10, labels) - a) for labels, row in TABLE for i, a in row]
    for labels, accuracy in ((math.log(10), 0.5), (2.3008, 0.3), (2.2226, 0.9)):
        needed = information_needed(accuracy, 10, labels)
        errors.append(abs(accuracy_bound(needed, 10, labels) - accuracy))
    errors += [1 - accuracy_bound(labels, 10, labels) for labels in (2.2226, math.log(10))]
    return max(errors)


def reload_error(model: Hierarchy, x: Tensor) -> float:
    """Relative change of the objective when a model is saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "model.safetensors")
        back = load(Path(folder) / "model.safetensors")
    found = []
    for each in (model, back):
        torch.manual_seed(6)
        found.append(float(losses(each, x).weighted(torch.ones(model.layers)).sum()))
    return abs(found[1] / found[0] - 1)


def parameters(family: str, preset: Preset) -> int:
    return sum(weights.numel() for weights in make(family, preset).parameters())


@torch.no_grad()
def _a1(x: Tensor) -> Check:
    found = [rates_add_up(model, x) for model in models()]
    error, least = max(e for e, _ in found), min(r for _, r in found)
    note = (
        f"sum of rates against the joint divergence, relative; least rate of a picture {least:.2g} nats"
    )
    return Check("A1", error < 0.01 and least >= 0, error, 0.01, note)


def checks() -> list[Check]:
    """A1 to A6; a few seconds."""
    x = pictures(64)
    split, broken, control, negative = identities()
    sizes = [parameters(family, preset) - count for family, preset, count in SIZES]
    blind = all(sees_no_lower_layer(model, x) for model in models())
    colour = make("free", Preset(3, 32, 8, (4,), 16, sigma=0.71))
    with torch.no_grad():
        reloaded = max(
            reload_error(m, p) for m, p in ((models()[0], x), (colour, torch.rand(8, 3, 32, 32)))
        )
    elbo = max(objective_is_elbo(model.double(), x.double()) for model in models())
    deviation, inverse = closed_form(), bounds()
    return [
        _a1(x),
        Check(
            "A2",
            elbo < 1e-6,
            elbo,
            1e-6,
            "loss against -ELBO and beta-VAE, slope in beta against rates",
        ),
        Check(
            "A3",
            blind and not any(sizes),
            float(sum(map(abs, sizes))),
            0,
            "posteriors see no layer below, to the bit; parameters off the official code's counts",
        ),
        Check(
            "A4",
            max(split, broken, control) < 1e-10 and negative > 0,
            max(split, broken, control),
            1e-10,
            f"identities and bounds of {TOYS} tables; bottom-up off by I(z1;z2|x), negative in "
            f"{negative:.0%}",
        ),
        Check(
            "A5",
            inverse < 1e-3 and deviation < 3,
            inverse,
            1e-3,
            f"f^-1; closed-form divergence {deviation:.1f} standard errors from sampling",
        ),
        Check("A6", reloaded < 1e-6, reloaded, 1e-6, "objective after reloading, sigma too"),
    ]
