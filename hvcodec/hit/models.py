"""Hierarchical VAEs whose rate splits into one term per layer, and one whose rate does not.

    p(x, z) = p(z_L) prod_l p(z_l | z_>l) p(x | z),    q(z | x) = q(z_L | x) prod_l q(z_l | z_>l, x)

All conditionals are diagonal Gaussians, p(z_L) is standard. Sizes of networks follow the paper's
official code (github.com/timxzz/HIT): strided 4x4 convolutions, one hidden layer in priors, ReLU,
scales by softplus; here a scale has a floor. Three families differ in how q sees x and what is above
it:

- `Free`: every layer has a network of its own ("HVAE" there);
- `Ladder`: features of x are shared, and q(z_l | z_>l, x) is the product of a Gaussian from these with
  the prior ("LVAE"; Sonderby et al., NeurIPS 2016);
- `General`: features are shared, q sees them beside all of z_>l, and the picture is made from all
  layers.

With two layers z_2 is a vector and z_1 a map of 4x4; a third layer on top is a shorter vector. A model
may have the rate weights as an input (`amortised`): then ln beta scales and shifts the channels of
every hidden layer and of the Gaussians' parameters (FiLM, Perez et al., AAAI 2018), and one network
serves all weights.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .. import files
from ..errors import ModelError, UsageError

SCALE_FLOOR = 0.01
SETTING = 32  # numbers into which the rate weights are embedded
MAP = 4  # rows and columns of z_1


class Gaussian(NamedTuple):
    """Diagonal Gaussians: mean and standard deviation, B x d."""

    mean: Tensor
    scale: Tensor

    def sample(self) -> Tensor:
        """One sample each, differentiable in mean and scale."""
        return self.mean + self.scale * torch.randn_like(self.mean)

    def log_density(self, z: Tensor) -> Tensor:
        """ln of the density, summed over dimensions; B."""
        return torch.distributions.Normal(*self, validate_args=False).log_prob(z).sum(1)

    def divergence(self, other: "Gaussian") -> Tensor:
        """KL from `other`, in nats, summed over dimensions; B."""
        ratio = self.scale / other.scale
        offset = (self.mean - other.mean) / other.scale
        return (0.5 * (ratio.square() + offset.square() - 1) - ratio.log()).sum(1)

    def times(self, other: "Gaussian") -> "Gaussian":
        """The product of two densities, normalised: precisions add, means are weighted by them."""
        own, its = self.scale**-2, other.scale**-2
        return Gaussian((own * self.mean + its * other.mean) / (own + its), (own + its) ** -0.5)


Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


@dataclass(frozen=True)
class Preset:
    """Sizes for one kind of picture.

    Attributes:
        planes, side: of pictures, values in [0, 1]; a side of 28 or 32 pixels.
        channels: of all hidden maps.
        vectors: lengths of the layers above z_1, coarse first.
        hidden: of priors.
        sigma: standard deviation of a Gaussian likelihood, at the start if it is learned; None for a
            Bernoulli one.
        learn_sigma: whether it is trained.
        latent: channels of z_1; by default those of the hidden maps.
    """

    planes: int
    side: int
    channels: int
    vectors: tuple[int, ...]
    hidden: int
    sigma: float | None = None
    learn_sigma: bool = False
    latent: int | None = None

    @property
    def least(self) -> float:
        """What D cannot fall below: N ln(2 pi sigma^2) / 2 for N numbers, or 0 for a Bernoulli one."""
        if self.sigma is None:
            return 0.0
        return self.planes * self.side**2 / 2 * math.log(2 * math.pi * self.sigma**2)

    def with_layers(self, layers: int) -> "Preset":
        """The same with 2 or 3 layers.

        Raises:
            UsageError: another number.
        """
        if layers not in (2, 3):
            raise UsageError("models have two or three layers")
        size = self.vectors[-1]
        return replace(self, vectors=(size,) if layers == 2 else (size // 2, size))


MNIST = Preset(1, 28, 16, (20,), 128)
# As many numbers in z_1, hidden layers twice as wide: for one network that serves all weights.
MNIST_WIDE = Preset(1, 28, 32, (20,), 256, latent=16)
COLOUR = Preset(3, 32, 32, (32,), 256, sigma=0.5**0.5)  # so that D is the squared error, and a constant
COLOUR_WIDE = Preset(3, 32, 64, (32,), 512, sigma=0.5**0.5, latent=32)
TINY = Preset(1, 28, 4, (3,), 8)


class Film(nn.Linear):
    """Scales and shifts channels as a setting B x SETTING says."""

    def __init__(self, width: int) -> None:
        super().__init__(SETTING, 2 * width)

    def forward(self, x: Tensor, setting: Tensor) -> Tensor:  # type: ignore[override]
        film = super().forward(setting)
        scale, shift = film.view(*film.shape, *[1] * (x.dim() - 2)).chunk(2, 1)
        return x * (1 + scale) + shift


class Net(nn.Module):
    """Layers with a ReLU after each, whose channels a setting may scale and shift."""

    def __init__(self, amortised: bool, *layers: Layer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        widths = [x.out_features if isinstance(x, nn.Linear) else x.out_channels for x in layers]
        self.films = nn.ModuleList(Film(width) for width in widths if amortised)

    def forward(self, x: Tensor, setting: Tensor | None) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if setting is not None:
                x = self.films[index](x, setting)
            x = F.relu(x)
        return x


class Head(nn.Module):
    """A hidden layer -> Gaussian, by one linear map or 3x3 convolution each for mean and scale."""

    def __init__(self, amortised: bool, width: int, size: int, flat: bool = True) -> None:
        super().__init__()
        kind = nn.Linear if flat else lambda a, b: nn.Conv2d(a, b, 3, padding=1)
        self.mean, self.scale = kind(width, size), kind(width, size)
        self.films = nn.ModuleList(Film(size) for _ in range(2) if amortised)

    def forward(self, x: Tensor, setting: Tensor | None) -> Gaussian:
        mean, scale = self.mean(x), self.scale(x)
        if setting is not None:
            mean, scale = (film(part, setting) for film, part in zip(self.films, (mean, scale)))
        return Gaussian(mean.flatten(1), (F.softplus(scale) + SCALE_FLOOR).flatten(1))


class Hierarchy(nn.Module):
    """Base of the families: priors, and what makes the picture. Subclasses say what q is.

    `setting`, wherever it appears, is ln beta of all layers, B x L, for an amortised model, else None.

    Attributes:
        sizes: dimensions of the layers, coarse first.
        log_sigma: ln of the Gaussian likelihood's standard deviation; a scalar, saved with the model.
    """

    def __init__(self, preset: Preset, amortised: bool = False) -> None:
        super().__init__()
        self.preset, self.amortised = preset, amortised
        c = preset.channels
        self.latent = preset.latent or c
        self.sizes = (*preset.vectors, self.latent * MAP * MAP)
        # From 4x4 to a quarter of the picture's side, which is 7x7 or 8x8.
        self._middle = (1, 0) if preset.side == 28 else (2, 1)  # stride and padding
        if amortised:
            self.embed = nn.Sequential(
                nn.Linear(len(self.sizes), SETTING), nn.SiLU(), nn.Linear(SETTING, SETTING), nn.SiLU()
            )
        self.prior_hidden = nn.ModuleList(
            self._net(nn.Linear(self._above(layer), preset.hidden))
            for layer in range(1, len(self.sizes))
        )
        self.prior_heads = nn.ModuleList(self._head(preset.hidden, size) for size in self.sizes[1:])
        self.synthesis = self._net(
            nn.ConvTranspose2d(self.latent, c, 4, *self._middle), nn.ConvTranspose2d(c, c, 4, 2, 1)
        )
        self.last = nn.ConvTranspose2d(c, preset.planes, 4, 2, 1)
        log_sigma = torch.tensor(preset.sigma or 1.0).log()
        if preset.learn_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)
        self._build()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _build(self) -> None:
        """Make what q needs."""
        raise NotImplementedError

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.sizes)

    def observe(self, x: Tensor, setting: Tensor | None = None) -> list[Tensor]:
        """What the posteriors see of pictures B x planes x side x side: features for each layer."""
        raise NotImplementedError

    def posterior(
        self, above: Sequence[Tensor], seen: list[Tensor], setting: Tensor | None = None
    ) -> Gaussian:
        """q(z_l | z_>l, x) of the layer below `above`, given what `observe` returned."""
        raise NotImplementedError

    def prior(self, above: Sequence[Tensor], count: int, setting: Tensor | None = None) -> Gaussian:
        """p(z_l | z_>l) of the layer below `above`, for a batch of `count`."""
        if not above:
            zeros = self.log_sigma.new_zeros(count, self.sizes[0])
            return Gaussian(zeros, zeros + 1)
        layer = len(above) - 1
        embedded = self._embed(setting)
        hidden = self.prior_hidden[layer](torch.cat([*above], 1), embedded)
        return self.prior_heads[layer](hidden, embedded)

    def picture(self, latents: Sequence[Tensor], setting: Tensor | None = None) -> Tensor:
        """Parameters of p(x | z): logits of a Bernoulli, or means; B x planes x side x side."""
        maps = self._map(latents, setting).view(-1, self.latent, MAP, MAP)
        return self.last(self.synthesis(maps, self._embed(setting)))

    def values(self, picture: Tensor) -> Tensor:
        """Expected pixels, in [0, 1], from what `picture` returned."""
        return picture.sigmoid() if self.preset.sigma is None else picture.clamp(0, 1)

    def distortion(self, picture: Tensor, x: Tensor) -> Tensor:
        """-ln p(x | z) in nats per picture; B."""
        if self.preset.sigma is None:
            return F.binary_cross_entropy_with_logits(picture, x, reduction="none").sum((1, 2, 3))
        # Not validated: training that diverges is told by its loss.
        normal = torch.distributions.Normal(picture, self.log_sigma.exp(), validate_args=False)
        return -normal.log_prob(x).sum((1, 2, 3))

    def _map(self, latents: Sequence[Tensor], setting: Tensor | None) -> Tensor:
        return latents[-1]

    def _above(self, layer: int) -> int:
        return sum(self.sizes[:layer])

    def _net(self, *layers: Layer) -> Net:
        return Net(self.amortised, *layers)

    def _head(self, width: int, size: int, flat: bool = True) -> Head:
        return Head(self.amortised, width, size, flat)

    @property
    def _flat(self) -> int:
        """Numbers in a hidden map of 4x4."""
        return self.preset.channels * MAP * MAP

    def _embed(self, setting: Tensor | None) -> Tensor | None:
        return None if setting is None else self.embed(setting)

    def _analysis(self) -> Net:
        """Pictures -> maps of 7x7 or 8x8."""
        c = self.preset.channels
        return self._net(nn.Conv2d(self.preset.planes, c, 4, 2, 1), nn.Conv2d(c, c, 4, 2, 1))

    def _reduce(self, width: int = 1) -> Net:
        """Maps of `width` times the channels -> maps of 4x4."""
        c = self.preset.channels
        return self._net(nn.Conv2d(width * c, c, 4, *self._middle))


class Free(Hierarchy):
    """A network of its own for every q(z_l | z_>l, x)."""

    def _build(self) -> None:
        c, flat = self.preset.channels, self._flat
        self.analyses = nn.ModuleList(self._analysis() for _ in self.sizes)
        self.reductions = nn.ModuleList([*(self._reduce() for _ in self.sizes[:-1]), self._reduce(2)])
        self.vectors = nn.ModuleList(
            self._net(nn.Linear(self._above(layer), flat)) for layer in range(1, self.layers)
        )
        self.merges = nn.ModuleList(self._net(nn.Linear(2 * flat, flat)) for _ in self.sizes[1:-1])
        self.expand = self._net(nn.ConvTranspose2d(c, c, 4, *self._middle))
        self.heads = nn.ModuleList(
            [*(self._head(flat, n) for n in self.sizes[:-1]), self._head(c, self.latent, flat=False)]
        )

    def observe(self, x: Tensor, setting: Tensor | None = None) -> list[Tensor]:
        embedded = self._embed(setting)
        maps = [analysis(x, embedded) for analysis in self.analyses]
        vectors = [reduce(m, embedded).flatten(1) for reduce, m in zip(self.reductions[:-1], maps)]
        return [*vectors, maps[-1]]

    def posterior(
        self, above: Sequence[Tensor], seen: list[Tensor], setting: Tensor | None = None
    ) -> Gaussian:
        layer, embedded = len(above), self._embed(setting)
        hidden = seen[layer]
        if above:
            down = self.vectors[layer - 1](torch.cat([*above], 1), embedded)
            if layer < self.layers - 1:
                hidden = self.merges[layer - 1](torch.cat([hidden, down], 1), embedded)
            else:
                down = self.expand(down.view(-1, self.preset.channels, MAP, MAP), embedded)
                hidden = self.reductions[-1](torch.cat([hidden, down], 1), embedded)
        return self.heads[layer](hidden, embedded)


class Shared(Hierarchy):
    """Base of those that share features of x: a map for z_1, a vector for every layer above."""

    def _build(self) -> None:
        c, flat = self.preset.channels, self._flat
        self.analysis = self._analysis()
        self.reductions = nn.ModuleList([self._reduce(), self._reduce()])
        self.up = nn.ModuleList(self._net(nn.Linear(flat, flat)) for _ in self.sizes[2:])
        self.heads = nn.ModuleList(
            [*(self._head(flat, n) for n in self.sizes[:-1]), self._head(c, self.latent, flat=False)]
        )

    def observe(self, x: Tensor, setting: Tensor | None = None) -> list[Tensor]:
        embedded = self._embed(setting)
        maps = self.analysis(x, embedded)
        fine, vector = (reduce(maps, embedded) for reduce in self.reductions)
        found = [fine, vector.flatten(1)]
        for up in self.up:
            found.append(up(found[-1], embedded))
        return found[::-1]


class Ladder(Shared):
    """q(z_l | z_>l, x) is what x says times the prior."""

    def posterior(
        self, above: Sequence[Tensor], seen: list[Tensor], setting: Tensor | None = None
    ) -> Gaussian:
        found: Gaussian = self.heads[len(above)](seen[len(above)], self._embed(setting))
        return found.times(self.prior(above, len(seen[0]), setting)) if above else found


class General(Shared):
    """q(z_l | z_>l, x) sees features of x beside all layers above, and the picture sees all layers."""

    def _build(self) -> None:
        super()._build()
        flat = self._flat
        self.merges = nn.ModuleList(
            self._net(nn.Linear(flat + self._above(layer), flat)) for layer in range(1, self.layers)
        )
        self.skip = nn.Linear(self._above(self.layers - 1), self.sizes[-1])

    def posterior(
        self, above: Sequence[Tensor], seen: list[Tensor], setting: Tensor | None = None
    ) -> Gaussian:
        layer, embedded = len(above), self._embed(setting)
        hidden = seen[layer]
        if above:
            merged = self.merges[layer - 1](torch.cat([hidden.flatten(1), *above], 1), embedded)
            hidden = merged.view(hidden.shape)
        return self.heads[layer](hidden, embedded)

    def _map(self, latents: Sequence[Tensor], setting: Tensor | None) -> Tensor:
        return latents[-1] + self.skip(torch.cat([*latents[:-1]], 1))


class BottomUp(Hierarchy):
    """The negative control: q(z_1 | x) q(z_2 | z_1) in place of a posterior from the top down.

    Two layers. `posterior` is that of z_1 given x; `coarse` that of z_2 given z_1.
    """

    def _build(self) -> None:
        c = self.preset.channels
        self.analysis, self.reduction = self._analysis(), self._reduce()
        self.head = self._head(c, self.latent, flat=False)
        self.coarse_hidden = self._net(nn.Linear(self.sizes[1], self.preset.hidden))
        self.coarse_head = self._head(self.preset.hidden, self.sizes[0])

    def observe(self, x: Tensor, setting: Tensor | None = None) -> list[Tensor]:
        embedded = self._embed(setting)
        return [self.reduction(self.analysis(x, embedded), embedded)]

    def posterior(
        self, above: Sequence[Tensor], seen: list[Tensor], setting: Tensor | None = None
    ) -> Gaussian:
        return self.head(seen[0], self._embed(setting))

    def coarse(self, fine: Tensor, setting: Tensor | None = None) -> Gaussian:
        """q(z_2 | z_1)."""
        embedded = self._embed(setting)
        return self.coarse_head(self.coarse_hidden(fine, embedded), embedded)


FAMILIES: dict[str, type[Hierarchy]] = {
    "free": Free,
    "ladder": Ladder,
    "general": General,
    "bottom-up": BottomUp,
}


def make(family: str, preset: Preset, amortised: bool = False) -> Hierarchy:
    """A model with fresh weights.

    Raises:
        UsageError: no such family, or a bottom-up model of more than two layers.
    """
    if family not in FAMILIES:
        raise UsageError(f"families are {', '.join(FAMILIES)}")
    if family == "bottom-up" and len(preset.vectors) > 1:
        raise UsageError("the bottom-up model has two layers")
    return FAMILIES[family](preset, amortised)


def save(model: Hierarchy, path: Path) -> None:
    """Write all that `load` needs, the likelihood's sigma too."""
    family = next(name for name, kind in FAMILIES.items() if type(model) is kind)
    about = {"family": family, "preset": asdict(model.preset), "amortised": model.amortised}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    files.write(path, safetensors.torch.save(tensors, {"hit": json.dumps(about)}))


def load(path: Path) -> Hierarchy:
    """Read what `save` wrote.

    Raises:
        ModelError: not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["hit"])
            preset = Preset(**{**about["preset"], "vectors": tuple(about["preset"]["vectors"])})
            model = make(about["family"], preset, about["amortised"])
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is no model of this kind: {error}") from None
    return model.eval()
