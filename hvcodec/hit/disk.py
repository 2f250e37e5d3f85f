"""Rates made real: pictures coded by bits-back under a trained model, layer by layer in bits.

Latents are coded in units of their own, one for every dimension and fixed for the model, so that the
grid just reaches over all their values. A divergence does not depend on units.

The bottom of the stack is real bits, which come back and are counted apart. Decoding runs the networks
again on batches of the same size, on the same machine, with the same number of threads.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .. import coding
from ..errors import UsageError
from ..exact import Array
from .data import Split
from .models import BottomUp, Gaussian, Hierarchy
from .objective import infer

BATCH = 50
START = 8000  # words of 32 bits that a chain starts with
LOOKED_AT = 1000  # pictures, to find units
# How much farther than all that was seen the grid reaches. No more, since now and then the coder pops a
# latent from anywhere within reach, and a picture that is made from one far out costs more.
MARGIN = 1.5


@torch.no_grad()
def units(model: Hierarchy, data: Split) -> list[Array]:
    """What latents are whole numbers of, for each layer: float64, d.

    Args:
        data: pictures that the model was trained on; some of them are looked at.
    """
    x = data.batch(slice(LOOKED_AT))
    torch.manual_seed(0)
    found = []
    for step in infer(model, x):
        farthest = (step.z - step.prior.mean).abs().amax(0)
        found.append((farthest * MARGIN / coding.REACH).double().numpy())
    return found


@dataclass
class Adapter:
    """A trained top-down model as `coding.BitsBack` takes it, with a grid of 1: numpy, whole pixels.

    Attributes:
        model: the model.
        units: see `units`.
    """

    model: Hierarchy
    units: list[Array]

    def __post_init__(self) -> None:
        self.layers = self.model.layers

    @torch.no_grad()
    def prior(self, above: list[Array], count: int) -> coding.Gaussian:
        p = self.model.prior(self._latents(above), count)
        return self._own(p, len(above))

    @torch.no_grad()
    def posterior(self, above: list[Array], x: Array) -> coding.Gaussian:
        pixels = torch.from_numpy(x).float() / (255 if self.model.preset.sigma else 1)
        q = self.model.posterior(self._latents(above), self.model.observe(pixels))
        return self._own(q, len(above))

    @torch.no_grad()
    def likelihood(self, latents: list[Array]) -> coding.Likelihood:
        picture = self.model.picture(self._latents(latents))
        if self.model.preset.sigma is None:
            return coding.Bernoulli(picture.double().sigmoid().numpy())
        means = 255 * picture.double().numpy()
        return coding.Bytes(coding.Gaussian(means, np.full(means.shape, self._sigma)))

    def _own(self, gaussian: Gaussian, layer: int) -> coding.Gaussian:
        return coding.Gaussian(*(part.double().numpy() / self.units[layer] for part in gaussian))

    def _latents(self, own: list[Array]) -> list[Tensor]:
        return [torch.from_numpy(z * unit).float() for z, unit in zip(own, self.units)]

    @property
    def _sigma(self) -> float:
        return 255 * math.exp(float(self.model.log_sigma))

    @torch.no_grad()
    def elbo(self, x: Array) -> tuple[Array, float]:
        """KL of each layer and -log2 p(x | z) of a batch, in bits: with samples, without a coder."""
        scale = 255 if self.model.preset.sigma else 1
        steps = infer(self.model, torch.from_numpy(x).float() / scale)
        rates = np.array([float(s.posterior.divergence(s.prior).double().sum()) for s in steps])
        picture = self.model.picture([s.z for s in steps]).double()
        pixels = torch.from_numpy(x).double()
        if self.model.preset.sigma is None:
            cost = self.model.distortion(picture, pixels).sum()
        else:
            cost = -_log_mass(pixels, 255 * picture, self._sigma).sum()
        return rates / math.log(2), float(cost) / math.log(2)


def _log_mass(x: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """ln of the mass that a rounded Gaussian puts on x; 0 and 255 take what lies beyond them."""
    normal = torch.distributions.Normal(mean, sigma)
    upper = torch.where(x == 255, 1.0, normal.cdf(x + 0.5))
    lower = torch.where(x == 0, 0.0, normal.cdf(x - 0.5))
    return (upper - lower).clamp(min=2.0**-24).log()


def code(
    model: Hierarchy,
    data: Split,
    train: Split,
    batch: int = BATCH,
    quiet: bool = True,
) -> dict[str, Any]:
    """Chain all pictures on one stack, decode them, and compare with the ELBO.

    Args:
        data: pictures; whole batches of them are coded.
        train: pictures that the model was trained on.

    Returns:
        Bits per picture: "rates" and "divergences" (what each layer took, and its KL), "data" and
        "distortion" (the same for x), "bits" (the file without the bits it was started with) and
        "elbo". "bytes" of the whole file, "start_bytes" that it was started with, "pictures", "exact":
        whether pictures and first bits came back.

    Raises:
        UsageError: a bottom-up model, or one that takes rate weights, or not one whole batch.
    """
    if isinstance(model, BottomUp) or model.amortised:
        raise UsageError("only top-down models that take no rate weights are coded here")
    if len(data.x) < batch:
        raise UsageError(f"coding needs {batch} pictures or more")
    adapter = Adapter(model, units(model, train))
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    words = rng.integers(1 << 32, size=START, dtype=np.uint32)
    chain = coding.BitsBack(adapter, words, 1.0)
    count = len(data.x) // batch * batch
    batches = [data.x[k : k + batch] for k in range(0, count, batch)]
    divergences, distortion = np.zeros(model.layers), 0.0
    for x in tqdm(batches, disable=quiet, desc="push"):
        chain.push(x)
        rates, cost = adapter.elbo(x)
        divergences, distortion = divergences + rates, distortion + cost
    content = chain.content
    reader = coding.BitsBack.open(adapter, content, 1.0)
    exact = all((reader.pop(batch) == x).all() for x in tqdm(batches[::-1], disable=quiet, desc="pop"))
    bits = 32 * (len(content) - len(words) - 1)
    return {
        "pictures": count,
        "bytes": 4 * len(content),
        "start_bytes": 4 * len(words),
        "bits": bits / count,
        "elbo": float(divergences.sum() + distortion) / count,
        "rates": (chain.rates / count).tolist(),
        "divergences": (divergences / count).tolist(),
        "data": chain.data_bits / count,
        "distortion": distortion / count,
        "exact": bool(exact and (reader.start == words).all()),
    }
