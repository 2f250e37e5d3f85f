"""Bits-back coding under a hierarchical VAE: the rate is that of the ELBO, and nothing is lost."""

import math

import numpy as np
import pytest

import hvcodec
from hvcodec.coding import Bernoulli, BitsBack, Bytes, Gaussian

WIDTH, A, B, S1, S = 8, 0.9, 30.0, 0.5, 9.0


class Linear:
    """z2 ~ N(0, 1), z1 ~ N(A z2, S1^2), x ~ N(128 + B z1, S^2), rounded: posteriors are known.

    Attributes:
        error: by how many of their own standard deviations posterior means are wrong.
    """

    layers = 2

    def __init__(self, error=0.0):
        self.error = error

    def prior(self, above, count):
        if not above:
            return Gaussian(np.zeros((count, WIDTH)), np.ones((count, WIDTH)))
        return Gaussian(A * above[0], np.full((count, WIDTH), S1))

    def posterior(self, above, x):
        seen = x - 128.0
        if above:
            gain, noise, mean, variance = B, S**2, A * above[0], S1**2
        else:
            gain, noise, mean, variance = B * A, B**2 * S1**2 + S**2, np.zeros(x.shape), 1.0
        precision = 1 / variance + gain**2 / noise
        scale = precision**-0.5
        centre = (mean / variance + gain * seen / noise) / precision
        return Gaussian(centre + self.error * scale, np.full(x.shape, scale))

    def likelihood(self, latents):
        return Bytes(Gaussian(128 + B * latents[1], np.full(latents[1].shape, S)))


def drawn(rng, count):
    z2 = rng.normal(size=(count, WIDTH))
    z1 = A * z2 + S1 * rng.normal(size=z2.shape)
    return np.clip(np.rint(128 + B * z1 + S * rng.normal(size=z2.shape)), 0, 255).astype(np.uint8)


def words(rng, count):
    return rng.integers(1 << 32, size=count, dtype=np.uint32)


def below(x, mean, scale):
    return 0.5 * (1 + np.vectorize(math.erf)((x - mean) / scale / math.sqrt(2)))


@pytest.fixture(scope="module")
def coded():
    rng = np.random.default_rng(0)
    x, start = drawn(rng, 20000), words(rng, 400)
    chain = BitsBack(Linear(), start)
    for batch in np.split(x, 200):
        chain.push(batch)
    return x, start, chain


def test_data_and_the_first_bits_come_back(coded):
    x, start, chain = coded
    reader = BitsBack.open(Linear(), chain.content)
    back = [reader.pop(100) for _ in range(200)]
    assert (np.concatenate(back[::-1]) == x).all()
    assert (reader.start == start).all()


def test_the_cost_is_the_likelihood_since_posteriors_are_exact(coded):
    x, start, chain = coded
    scale = math.sqrt(B**2 * (A**2 + S1**2) + S**2)
    inner = x[(x > 0) & (x < 255)].astype(float)
    cost = -np.log2(below(inner + 0.5, 128, scale) - below(inner - 0.5, 128, scale)).sum()
    ends = -np.log2(below(0.5, 128, scale))
    cost += ends * ((x == 0) | (x == 255)).sum()
    bits = 32 * (len(chain.content) - len(start) - 1)
    assert bits == pytest.approx(cost, rel=0.003)
    assert bits == pytest.approx(chain.rates.sum() + chain.data_bits, abs=64)


def test_rates_are_the_divergences_layer_by_layer(coded):
    x, _, chain = coded
    model, count = Linear(), x.size
    q = model.posterior([], x)
    coarse = (-np.log(q.scale) + (q.scale**2 + q.mean**2 - 1) / 2).sum()
    # E over z2 ~ q of KL(q(z1 | z2, x) || p(z1 | z2)).
    z2 = q.mean + q.scale * np.random.default_rng(5).normal(size=x.shape)
    r, p = model.posterior([z2], x), model.prior([z2], len(x))
    fine = (
        np.log(p.scale / r.scale) + (r.scale**2 + (r.mean - p.mean) ** 2) / p.scale**2 / 2 - 0.5
    ).sum()
    assert chain.rates / count == pytest.approx(
        np.array([coarse, fine]) / count / math.log(2), rel=0.01
    )


@pytest.mark.parametrize("start", ["random", "zero"])
def test_a_worse_posterior_costs_its_divergence(start):
    """Also in a chain, where latents are drawn from what a mismatched model left; and from first bits
    that are not random at all."""
    rng = np.random.default_rng(4)
    x = drawn(rng, 4000)
    bits = []
    for error in (0, 0.7):
        first = words(rng, 400) if start == "random" else np.zeros(400, np.uint32)
        chain = BitsBack(Linear(error), first)
        for batch in np.split(x, 40):
            chain.push(batch)
        bits.append((chain.rates.sum() + chain.data_bits) / x.size)
        reader = BitsBack.open(Linear(error), chain.content)
        assert all((reader.pop(100) == batch).all() for batch in np.split(x, 40)[::-1])
        assert (reader.start == first).all()
    # Both posteriors are wrong by 0.7 standard deviations: 0.7^2 / 2 nats each.
    assert bits[1] - bits[0] == pytest.approx(0.7**2 / math.log(2), rel=0.05)


def test_an_empty_stack_is_no_source_of_bits():
    x = drawn(np.random.default_rng(1), 100)
    with pytest.raises(hvcodec.UsageError, match="bits"):
        BitsBack(Linear(), np.empty(0, np.uint32)).push(x)


def test_what_no_chain_left_is_refused():
    rng = np.random.default_rng(2)
    chain = BitsBack.open(Linear(), words(rng, 50) | 1)
    with pytest.raises(hvcodec.FormatError):
        for _ in range(100):
            chain.pop(10)
    chain = BitsBack.open(Linear(), np.array([5, 7], np.uint32))
    with pytest.raises(hvcodec.FormatError):
        _ = chain.start
    with pytest.raises(hvcodec.FormatError):
        BitsBack.open(Linear(), np.array([1, 0], np.uint32))


def test_binary_data():
    rng = np.random.default_rng(3)

    class Binary(Linear):
        def likelihood(self, latents):
            return Bernoulli(1 / (1 + np.exp(-latents[1])))

    x = rng.integers(2, size=(50, WIDTH)).astype(np.uint8)
    start = words(rng, 500)
    chain = BitsBack(Binary(), start)
    chain.push(x)
    reader = BitsBack.open(Binary(), chain.content)
    assert (reader.pop(50) == x).all() and (reader.start == start).all()
