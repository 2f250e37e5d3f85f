"""The hierarchical VAE: trunk, priors and synthesis.

Generative path, coarse to fine: a trunk of features h runs down the strides 64, 32, 16, 8. In every
pass of every layer the trunk predicts the prior of the latents (a mean mu, a scale and a tail shape
per coefficient); the symbol z, an integer, arrives from the encoder or from the stream; the value
mu + Delta z is fed back into the trunk. The picture is the inverse linear transform of all values
plus a correction by a small network at stride 2.

Inference: y = transform(x); q(z_l | z_>l, x) has unit width in symbols, centred at (y - mu)/Delta.
At zero weights all corrections vanish and the model is a plain block-transform codec.

This is the network as it is trained, in PyTorch; `network.py` is the same one as it runs, in exact
arithmetic. For that it has ReLU, no normalisation, clamped ranges, a residual stream that is never
rescaled, and conditioning that is a sum of one table per layer, indexed by that layer's integer step.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import modelfile
from .checkerboard import merge, place, take, together
from .ladder import LAYERS, STRIDES, Place, of_layers, places
from .likelihood import Prior, bounded
from .network import (
    COARSE_LAYERS,
    DC_SPREAD,
    FEATURES,
    FINEST_COARSE,
    KNOT_RANGE,
    KNOTS,
    MEAN_MAX,
    MEAN_UNIT,
    SCALE_MAX,
)
from .steps import OFF, STEPS_PER_OCTAVE
from .torch_transform import Transform
from .transform import DC_PLANES, PLANES

Own = TypeVar("Own", bound="Sizes")


class Sizes:
    """Base of dataclasses of sizes: whole numbers and tuples of them.

    Attributes:
        may_be_0: names of those that may be 0.
    """

    may_be_0: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict:
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[Own], sizes: dict) -> Own:
        """The inverse of `to_dict`; sizes left out take their default. Raises ValueError."""

        def kinds(config: "Sizes") -> list[tuple[type, int]]:
            values = config.to_dict().values()
            return [(type(v), len(v) if isinstance(v, tuple) else 0) for v in values]

        try:
            config = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in sizes.items()})
            whole = all(
                type(n) is int and (0 < n < 4096 or (n == 0 and name in cls.may_be_0))
                for name, size in config.to_dict().items()
                for n in (size if isinstance(size, tuple) else (size,))
            )
            if whole and kinds(config) == kinds(cls()):
                return config
        except (AttributeError, TypeError, ValueError):
            pass
        raise ValueError(f"not the sizes of a network: {sizes}")


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of the network.

    Attributes:
        widths: trunk channels at strides 64, 32, 16, 8.
        expansion: hidden channels of a block per trunk channel.
        blocks: residual blocks before each pass of the layers z7 to z1.
        analysis_width: channels of the inference correction at stride 8.
        analysis_blocks: its residual blocks.
        closing_blocks: residual blocks of the trunk at stride 8 after the last layer.
        middle_width: channels of the picture correction at stride 4.
        middle_blocks: its residual blocks; with 0 of them there is no such correction.
        synthesis_width: channels of the picture correction at stride 2.
        synthesis_blocks: its residual blocks.
        groups: 1, or 2 for a network that codes channels of z5 to z3 in groups (`ladder.places`).
        follower_width: hidden channels of what a group's prior owes to the groups before it.
    """

    widths: tuple[int, int, int, int] = (128, 128, 128, 96)
    expansion: int = 2
    blocks: tuple[int, int, int, int, int, int, int] = (2, 2, 2, 2, 2, 2, 2)
    analysis_width: int = 96
    analysis_blocks: int = 4
    closing_blocks: int = 2
    middle_width: int = 64
    middle_blocks: int = 2
    synthesis_width: int = 32
    synthesis_blocks: int = 3
    groups: int = 1
    follower_width: int = 96

    may_be_0 = ("middle_blocks",)

    @classmethod
    def from_dict(cls, sizes: dict) -> "Config":
        """See `Sizes.from_dict`; `blocks` may also be those of the strides 64, 32, 16 and 8."""
        if isinstance(sizes, dict) and isinstance(sizes.get("blocks"), (list, tuple)):
            sizes = sizes | {"blocks": of_layers(sizes["blocks"])}
        return super().from_dict(sizes)


class Product(nn.Module):
    """Something that multiplies its inputs by weights.

    Attributes:
        grid: unit and limit that the inputs are rounded and clamped to, as at run time (`exact.py`);
            None while training.
        largest: the largest input seen, if that is noted; else None.
    """

    grid: tuple[float, int] | None = None
    largest: float | None = None

    def snap(self, x: Tensor) -> Tensor:
        if self.largest is not None:
            self.largest = max(self.largest, float(x.abs().max()))
        if self.grid is None:
            return x
        unit, limit = self.grid
        return torch.round(x / unit).clamp(-limit, limit) * unit

    def terms(self) -> tuple[Tensor, Tensor | None]:
        """Weights, outputs first, and biases if there are any."""
        raise NotImplementedError


class Pointwise(Product):
    """A matrix product over channels (1x1 convolution) whose weight is kept as a matrix."""

    def __init__(self, inputs: int, outputs: int, zero: bool = False) -> None:
        super().__init__()
        scale = 0.0 if zero else inputs**-0.5
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * scale)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.snap(x), self.weight[:, :, None, None], self.bias)

    def terms(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.bias


class Block(Product):
    """Residual block: depthwise 3x3, expand, condition on the steps, ReLU, project."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        kernel = torch.randn(width, 1, 3, 3) * 0.1
        kernel[:, :, 1, 1] += 1
        self.depthwise = nn.Parameter(kernel)
        self.expand = Pointwise(width, hidden)
        self.condition = nn.Linear(len(LAYERS) * FEATURES, hidden, bias=False)
        nn.init.zeros_(self.condition.weight)
        self.project = Pointwise(hidden, width, zero=True)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        u = F.conv2d(self.snap(h), self.depthwise, padding=1, groups=h.shape[1])
        # In place where the product is done with it: large pictures are limited by memory.
        u = self.expand(u).add_(self.condition(condition)[:, :, None, None])
        return self.project(u.relu_()).add_(h)

    def terms(self) -> tuple[Tensor, None]:
        return self.depthwise, None


class Follower(nn.Module):
    """What a group's prior owes to the groups before it at the same positions."""

    def __init__(self, width: int, known: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.from_trunk = Pointwise(width, hidden)
        self.from_values = Pointwise(3 * known, hidden)
        self.condition = nn.Linear(len(LAYERS) * FEATURES, hidden, bias=False)
        nn.init.zeros_(self.condition.weight)
        self.out = Pointwise(hidden, 3 * channels, zero=True)

    def forward(self, h: Tensor, features: Tensor, condition: Tensor) -> Tensor:
        u = self.from_trunk(h) + self.from_values(features)
        return self.out((u + self.condition(condition)[:, :, None, None]).relu())


class Rung(nn.Module):
    """One pass of one layer: blocks, the prior's head, the way back of the decoded values, and what
    later groups owe to earlier ones."""

    def __init__(self, width: int, places: list[Place], blocks: int, config: Config) -> None:
        super().__init__()
        channels = LAYERS[places[0].layer].channels
        self.blocks = nn.ModuleList(Block(width, config.expansion) for _ in range(blocks))
        self.head = Pointwise(width, 3 * channels, zero=True)
        self.absorb = Pointwise(3 * channels, width)
        sizes = [len(at.channels) for at in places]
        self.followers = nn.ModuleList(
            Follower(width, sum(sizes[:n]), sizes[n], config.follower_width)
            for n in range(1, len(places))
        )


class Descent(NamedTuple):
    """Where the ladder ends: values per layer, coarse first, and the trunk at stride 8."""

    values: list[Tensor]
    trunk: Tensor


Choose = Callable[[Place, Prior], Tensor]

# Tensors of a model file that are not this network's: the first part of their names.
NOT_ITS_OWN = ("tables", "exact", "lossless")


def compress(value: Tensor) -> Tensor:
    """Coefficients on a logarithmic scale, about -3 .. 3."""
    return value.sign() * torch.log2(1 + value.abs() / 2) / 4


def fading_gain(outputs: int) -> nn.Linear:
    """Gain of a correction from the steps, in proportion to them at the start: finer steps leave less
    to correct."""
    gain = nn.Linear(len(LAYERS) * FEATURES, outputs, bias=False)
    knots = torch.linspace(*KNOT_RANGE, KNOTS)
    fade = torch.cat([torch.exp2(knots - 6).clamp(max=2), torch.ones(1)]) / len(LAYERS)
    gain.weight.data.copy_(fade.repeat(len(LAYERS)).expand(outputs, -1))
    return gain


class Model(nn.Module):
    """The whole network. Pixels are RGB minus 128; sizes are multiples of 64."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.transform = Transform()
        width = dict(zip(STRIDES, config.widths))
        self.start = nn.Parameter(torch.zeros(width[STRIDES[0]]))
        self.rungs = nn.ModuleList(
            nn.ModuleList(
                Rung(width[la.stride], places(k, p, config.groups > 1), config.blocks[k], config)
                for p in range(la.passes)
            )
            for k, la in enumerate(LAYERS)
        )
        self.up = nn.ModuleList(
            Pointwise(width[s], 4 * width[s // 2]) for s in STRIDES if s > STRIDES[-1]
        )
        # Typical size of each coefficient and of its symbols' tails, set from data by `calibrate`.
        for la in LAYERS:
            self.register_buffer(f"spread_{la.name}", torch.ones(la.channels))
        # Tail shapes: ratio and weight of the wide logistic at shape 0 and 1 (`likelihood.py`).
        self.tail = nn.Parameter(torch.tensor([[1.0, -1.0], [2.5, -1.0]]))
        w = config.analysis_width
        self.analysis_in = Pointwise(2 * PLANES, w)
        self.analysis_blocks = nn.ModuleList(
            Block(w, config.expansion) for _ in range(config.analysis_blocks)
        )
        self.analysis_out = Pointwise(w, PLANES, zero=True)
        self.analysis_gain = fading_gain(PLANES)
        self.closing_blocks = nn.ModuleList(
            Block(width[8], config.expansion) for _ in range(config.closing_blocks)
        )
        self.closing_head = Pointwise(width[8], PLANES - DC_PLANES, zero=True)
        w, middle = config.synthesis_width, config.middle_width
        if config.middle_blocks:
            self.middle_in = Pointwise(width[8], 4 * middle)
            self.middle_blocks = nn.ModuleList(
                Block(middle, config.expansion) for _ in range(config.middle_blocks)
            )
            self.middle_out = Pointwise(middle, 4 * w, zero=True)
        self.synthesis_in = Pointwise(width[8], 16 * w)
        self.synthesis_picture = Pointwise(12, w)
        self.synthesis_blocks = nn.ModuleList(
            Block(w, config.expansion) for _ in range(config.synthesis_blocks)
        )
        self.synthesis_out = Pointwise(w, 12, zero=True)
        self.synthesis_gain = fading_gain(12)

    def spread(self, layer: int) -> Tensor:
        """Standard deviation of the layer's coefficients over natural pictures, shape C x 1 x 1."""
        return getattr(self, f"spread_{LAYERS[layer].name}")[:, None, None]

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        """Set the spreads from a batch of pictures B x 3 x H x W."""
        for la, y in zip(LAYERS, self.transform(pixels)):
            getattr(self, f"spread_{la.name}").copy_(y.square().mean((0, 2, 3)).sqrt().clamp(min=1))

    def analyse(self, pixels: Tensor, steps: Tensor) -> list[Tensor]:
        """Latents y that the posterior is centred at: pixels B x 3 x H x W -> per layer, coarse first.

        The linear transform and a correction by a small network at stride 8, in units of the steps.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            planes = self.transform.blocks(pixels)
        condition = self.condition(steps)
        spreads = [self.spread(k) for k, la in enumerate(LAYERS) if la.stride == 8]
        spread = torch.cat([spreads[0].new_full((DC_PLANES, 1, 1), DC_SPREAD), *spreads])
        planes = planes.contiguous(memory_format=torch.channels_last)
        u = self.analysis_in(torch.cat([(planes / spread).clamp(-8, 8), compress(planes)], 1))
        for block in self.analysis_blocks:
            u = block(u, condition)
        gain = self.analysis_gain(condition).float()[:, :, None, None]
        return self.transform.split(planes + self.analysis_out(u).float() * gain)

    @staticmethod
    def condition(steps: Tensor) -> Tensor:
        """Step indices B x L (0..255) -> features B x (L * FEATURES)."""
        log2_delta = steps / STEPS_PER_OCTAVE - 1
        low, high = KNOT_RANGE
        spacing = (high - low) / (KNOTS - 1)
        knots = torch.arange(KNOTS, device=steps.device) * spacing + low
        hats = (1 - (log2_delta[..., None].clamp(low, high) - knots).abs() / spacing).clamp(min=0)
        off = (steps == OFF)[..., None]
        return torch.cat([hats * ~off, off.to(hats)], -1).flatten(1)

    @staticmethod
    def delta(steps: Tensor, layer: int) -> Tensor:
        """Quantiser steps of a layer, B x 1 x 1 x 1, in coefficient units."""
        return torch.exp2(steps[:, layer] / STEPS_PER_OCTAVE - 1)[:, None, None, None]

    def descend(
        self, steps: Tensor, present: Tensor, height: int, width: int, choose: Choose
    ) -> Descent:
        """Run the generative path from coarse to fine.

        Args:
            steps: step indices as coded, B x L int64.
            present: those that the layers are known to: `OFF` where a layer is missing because the
                stream was cut, coarser where it is known from an earlier run. From the first layer that
                differs on the trunk is conditioned on these, before it on `steps`, as when the layers
                were coded.
            height, width: of the picture, multiples of 64.
            choose: called as choose(place, prior) for all that is coded in one go; gives the values
                minus the prior mean, in coefficient units, B x C x H x W packed (`checkerboard.py`).

        Returns:
            Values per layer (coarse first, coefficient units) and the trunk at stride 8.
        """
        batch = steps.shape[0]
        fine = self.condition(steps), self.condition(present)
        coarse = tuple(self.condition(s.clamp(min=FINEST_COARSE)) for s in (steps, present))
        h = self.start[:, None, None].expand(batch, -1, height // 64, width // 64)
        h = h.contiguous(memory_format=torch.channels_last)
        values = []
        for index, la in enumerate(LAYERS):
            if index and la.stride < LAYERS[index - 1].stride:
                h = F.pixel_shuffle(self.up[STRIDES.index(la.stride) - 1](h), 2)
            coded, cut = coarse if index < COARSE_LAYERS else fine
            missing = present[:, index] == OFF
            apart = missing | (present[:, index] != steps[:, index])
            condition = torch.where(apart[:, None], cut, coded)
            spread = self.spread(index)
            delta = self.delta(torch.where(missing[:, None], steps, present), index)
            parts = []
            rungs = cast("list[Rung]", self.rungs[index])
            for p, rung in enumerate(rungs):
                for block in rung.blocks:
                    h = block(h, condition)
                seen = take(h, p, la.passes)
                found = rung.head(seen).float().unflatten(1, (3, -1))
                told: dict[Place, Tensor] = {}
                known: dict[Place, Tensor] = {}
                for at in places(index, p, self.config.groups > 1):
                    own = found if len(at.channels) == la.channels else found[:, :, list(at.channels)]
                    scale_of = spread[list(at.channels)]
                    if told:
                        before = torch.cat([*told.values()], 2).flatten(1, 2)
                        more = rung.followers[len(told) - 1](seen, before, condition)
                        own = own + more.float().unflatten(1, (3, -1))
                    mean, log2_scale, shape = own.unbind(1)
                    prior = Prior(
                        bounded(mean * MEAN_UNIT, -MEAN_MAX, MEAN_MAX) * scale_of,
                        bounded(log2_scale, -SCALE_MAX, SCALE_MAX) + torch.log2(scale_of) - 1,
                        bounded(shape + 0.5, 0, 1),
                    )
                    residual = choose(at, prior)
                    known[at] = prior.mean + residual
                    features = self.features(known[at], residual, delta, scale_of)
                    told[at] = features.unflatten(1, (3, -1))
                back = together({at: of.transpose(1, 2) for at, of in told.items()})
                h = h + place(rung.absorb(back.transpose(1, 2).flatten(1, 2)), p, la.passes)
                parts.append(together(known))
            values.append(merge(parts))
        return Descent(values, h)

    @staticmethod
    def features(value: Tensor, residual: Tensor, delta: Tensor, spread: Tensor) -> Tensor:
        """What the trunk sees of decoded values: B x C x H x W twice -> B x 3C x H x W.

        Linear in units of the spread, logarithmic in coefficient units, logarithmic in steps. All
        three are monotone in integers (mean fraction, symbol), so a table can hold them.
        """
        linear = (value / spread).clamp(-8, 8)
        compressed = compress(value)
        symbol = residual / delta
        symbol = symbol.sign() * torch.log2(1 + symbol.abs()) / 2
        return torch.cat([linear, compressed, symbol], 1)

    def synthesise(self, values: list[Tensor], h: Tensor, present: Tensor) -> Tensor:
        """Values per layer, trunk and the steps of `descend` -> pixels B x 3 x H x W, not clamped."""
        condition = self.condition(present)
        for block in self.closing_blocks:
            h = block(h, condition)
        # Where in its interval, or in its prior, is the value really? By now the trunk has seen more.
        offsets = self.closing_head(h).float().split([la.channels for la in LAYERS[3:]], 1)
        values = list(values)
        for k, offset in enumerate(offsets, 3):
            values[k] = values[k] + offset * torch.minimum(self.delta(present, k), self.spread(k))
        with torch.autocast(h.device.type, enabled=False):
            linear = self.transform.inverse(values)
        u = F.pixel_shuffle(self.synthesis_in(h), 4)
        if self.config.middle_blocks:
            middle = F.pixel_shuffle(self.middle_in(h), 2)
            for block in self.middle_blocks:
                middle = block(middle, condition)
            u = u + F.pixel_shuffle(self.middle_out(middle), 2)
        u = u + self.synthesis_picture(F.pixel_unshuffle(linear / 64, 2))
        for block in self.synthesis_blocks:
            u = block(u, condition)
        gain = self.synthesis_gain(condition).float()[:, :, None, None] * 8
        return linear + F.pixel_shuffle(self.synthesis_out(u).float() * gain, 2)


@lru_cache(maxsize=1)
def model_of(path: Path) -> Model:
    """The network of a model file, as it was trained.

    Raises:
        ModelError: not a model file.
    """
    weights = {
        k: torch.from_numpy(v).float()
        for k, v in modelfile.tensors(path).items()
        if k.split(".")[0] not in NOT_ITS_OWN
    }
    model = Model(Config.from_dict(modelfile.card(path)["config"]))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
