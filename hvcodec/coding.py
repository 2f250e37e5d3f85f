"""Bits-back coding of data under a hierarchical VAE with Gaussian posteriors, chained over a set.

For any model p(z_L) p(z_L-1 | z_L) ... p(x | z) whose inference model has factors q(z_l | z_>l, x),
the class for which the rate splits into one term per layer (Xiao & Bamler, ICLR 2023). To code x, an
encoder with a stack of bits

    pops z_L, ..., z_1, coarse first, each under its posterior;
    pushes x under the likelihood;
    pushes z_1, ..., z_L under their priors,

and the decoder does all of it backwards, which gives the popped bits back. So in the mean x costs
-log p(x | z) + sum_l (log q(z_l | z_>l, x) - log p(z_l | z_>l)): the negative ELBO, layer by layer
(Townsend, Bird & Barber, ICLR 2019; top-down in deep models: Townsend et al., HiLLoC, ICLR 2020). The
bits that are popped first must come from somewhere: every chain starts on real bits, and they count.

Decoding must find the same Gaussians to the last bit: a network in floating point does so on the same
machine, in batches of the same size.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from constriction import stream

from .errors import FormatError, UsageError
from .exact import Array

BYTE = stream.model.QuantizedGaussian(0, 255)
BINARY = stream.model.Bernoulli(perfect=False)

GRID = 1 / 32
REACH = 512  # of latents on the grid, to each side of the prior's mean
# Every number within reach has a mass of at least 2^-24, also under a posterior that would never draw
# it; where one is drawn nevertheless the prior pays some 20 bits: 0.002 bits per latent at this reach.
HEAD_WORDS = 2
LEAST_WORDS = HEAD_WORDS + 1  # with no more the stack beneath has run out


class Gaussian(NamedTuple):
    """Means and standard deviations, float, of one shape."""

    mean: Array
    scale: Array


class Likelihood(Protocol):
    """p(x | z) of a batch."""

    def push(self, coder: stream.stack.AnsCoder, x: Array) -> None:
        """Put x on the stack."""

    def pop(self, coder: stream.stack.AnsCoder) -> Array:
        """The inverse of `push`."""


class Hierarchy(Protocol):
    """A hierarchical VAE over batches; latents are listed coarse first.

    Attributes:
        layers: number of layers of latents.
    """

    layers: int

    def prior(self, above: list[Array], count: int) -> Gaussian:
        """p(z_l | z_>l) of the next layer, for a batch of `count`."""

    def posterior(self, above: list[Array], x: Array) -> Gaussian:
        """q(z_l | z_>l, x) of the next layer."""

    def likelihood(self, latents: list[Array]) -> Likelihood:
        """p(x | z)."""


@dataclass
class Bernoulli:
    """Likelihood of binary data.

    Attributes:
        probability: that a value is 1, in (0, 1).
    """

    probability: Array

    def push(self, coder: stream.stack.AnsCoder, x: Array) -> None:
        coder.encode_reverse(_symbols(x), BINARY, _numbers(self.probability))

    def pop(self, coder: stream.stack.AnsCoder) -> Array:
        found = coder.decode(BINARY, _numbers(self.probability))
        return found.reshape(self.probability.shape).astype(np.uint8)


@dataclass
class Bytes:
    """Likelihood of values 0 .. 255: a Gaussian whose mass goes to the nearest of them.

    Attributes:
        gaussian: in the same units.
    """

    gaussian: Gaussian

    def push(self, coder: stream.stack.AnsCoder, x: Array) -> None:
        coder.encode_reverse(_symbols(x), BYTE, *map(_numbers, self.gaussian))

    def pop(self, coder: stream.stack.AnsCoder) -> Array:
        found = coder.decode(BYTE, *map(_numbers, self.gaussian))
        return found.reshape(self.gaussian.mean.shape).astype(np.uint8)


def _symbols(values: Array) -> Array:
    return np.ascontiguousarray(values.ravel(), np.int32)


def _numbers(values: Array) -> Array:
    return np.ascontiguousarray(values.ravel(), np.float64)


class BitsBack:
    """A stack that batches of data are chained on.

    Attributes:
        rates: bits that each layer cost so far, coarse first: its -log p less its -log q; float64.
        data_bits: bits that x took given z.
    """

    def __init__(self, model: Hierarchy, words: Array, grid: float = GRID) -> None:
        """Start a chain.

        Args:
            model: the hierarchical VAE.
            words: uint32, the bits to start with: worth something elsewhere, or random. They need not
                look random.
            grid: what latents are whole numbers of, up to `REACH` from the prior's mean. With every
                halving one more bit per latent is popped and comes back; above a posterior's scale the
                rate grows.
        """
        self._model, self._grid = model, grid
        self._coder = stream.stack.AnsCoder(np.asarray(words, np.uint32), seal=True)
        self._family = stream.model.QuantizedGaussian(-REACH, REACH)
        self.rates = np.zeros(model.layers)
        self.data_bits = 0.0

    @classmethod
    def open(cls, model: Hierarchy, content: Array, grid: float = GRID) -> "BitsBack":
        """A chain that another one left as its `content`; for decoding, or to go on.

        Raises:
            FormatError: no chain leaves this.
        """
        chain = cls(model, np.empty(0, np.uint32), grid)
        try:
            chain._coder = stream.stack.AnsCoder(np.asarray(content, np.uint32))
        except ValueError:
            raise FormatError("the content cannot be a stack") from None
        return chain

    @property
    def content(self) -> Array:
        """All words of the stack, uint32; the last ones are on top."""
        return self._coder.get_compressed()

    @property
    def start(self) -> Array:
        """The words that the chain was started with, once all batches are popped.

        Raises:
            FormatError: the stack is not what it was then.
        """
        try:
            return self._coder.get_compressed(unseal=True)
        except (AssertionError, ValueError):
            raise FormatError("the coded data do not fit the model") from None

    def push(self, x: Array) -> None:
        """Code one batch, in the first axis.

        Raises:
            UsageError: the stack holds fewer bits than the posteriors take.
        """
        self._whiten()
        latents: list[Array] = []
        priors = []
        for layer in range(self._model.layers):
            priors.append(self._model.prior(latents, len(x)))
            before = self._bits
            latents.append(self._pop(self._model.posterior(latents, x), priors[-1]))
            self.rates[layer] += self._bits - before
        if self._coder.num_words() < LEAST_WORDS:
            raise UsageError("bits-back coding needs more bits to start with")
        before = self._bits
        self._model.likelihood(latents).push(self._coder, x)
        self.data_bits += self._bits - before
        for layer in reversed(range(self._model.layers)):
            before = self._bits
            self._push(latents[layer], priors[layer], priors[layer])
            self.rates[layer] += self._bits - before

    def pop(self, count: int) -> Array:
        """The inverse of `push` for a batch of `count`; batches come back in the reverse order.

        Raises:
            FormatError: the stack ends too early: it is not what `push` left.
        """
        latents: list[Array] = []
        priors = []
        for _ in range(self._model.layers):
            priors.append(self._model.prior(latents, count))
            latents.append(self._pop(priors[-1], priors[-1]))
        x = self._model.likelihood(latents).pop(self._coder)
        if self._coder.num_words() < LEAST_WORDS:
            raise FormatError("the coded data do not fit the model")
        for layer in reversed(range(self._model.layers)):
            self._push(latents[layer], self._model.posterior(latents[:layer], x), priors[layer])
        self._whiten()
        return x

    def _whiten(self) -> None:
        """Add random words, always the same, to those under the head (twice is not at all).

        What lies there is what a model left of earlier batches, and it is random only as far as the
        model fits them. The next latents are drawn from it, and would not be samples of their
        posteriors.
        """
        words = self._coder.get_compressed()
        below = words[:-HEAD_WORDS]
        # Numbers of the bit generator itself are the same in every numpy.
        noise = np.random.Philox(key=len(words)).random_raw(-(-len(below) // 2))
        below ^= noise.astype("<u8").view("<u4")[: len(below)]
        self._coder = stream.stack.AnsCoder(words)

    @property
    def _bits(self) -> int:
        return self._coder.num_valid_bits()

    def _on_grid(self, shape: Gaussian, prior: Gaussian) -> tuple[Array, Array, Array]:
        """Zero of the grid, and mean and scale in its units."""
        zero = np.rint(_numbers(prior.mean) / self._grid)
        return zero, _numbers(shape.mean) / self._grid - zero, _numbers(shape.scale) / self._grid

    def _pop(self, shape: Gaussian, prior: Gaussian) -> Array:
        zero, mean, scale = self._on_grid(shape, prior)
        z = (self._coder.decode(self._family, mean, scale) + zero) * self._grid
        return z.reshape(shape.mean.shape)

    def _push(self, z: Array, shape: Gaussian, prior: Gaussian) -> None:
        zero, mean, scale = self._on_grid(shape, prior)
        symbols = np.rint(_numbers(z) / self._grid) - zero
        self._coder.encode_reverse(_symbols(symbols), self._family, mean, scale)
