"""What rates allow: bounds on classification, reconstruction and generation; and estimates of
information.

All information is in nats. H is the entropy of the data, h(y) that of the labels; r_l is the rate of
layer l and R their sum. Sources: Xiao & Bamler (ICLR 2023) for the use of rates per layer, Fano's
inequality for labels, Alemi et al. ("Fixing a broken ELBO", ICML 2018) for H - D <= I(x; z) <= R. The
bounds on samples are derived here, in the spirit of the paper's section on generation.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, xlogy

from ..errors import UsageError
from ..exact import Array

BISECTIONS = 60
SATURATED = 0.1  # of the labels' entropy: what labels without any relation to z may seem to tell
CHUNK = 500  # rows of the matrix of densities that are in memory at once


def entropy(probabilities: Array) -> Array:
    """-sum p ln p over the last axis; zero terms count nothing."""
    return -xlogy(probabilities, probabilities).sum(-1)


def label_entropy(labels: Array) -> float:
    """Entropy of the labels' frequencies, in nats."""
    return float(entropy(np.bincount(labels) / len(labels)))


def information_needed(accuracy: float, classes: int, labels: float) -> float:
    """Least I(y; z) at which some classifier can be right this often: Fano's inequality, as equality.

    f(a) = h(y) + a ln a + (1 - a) ln((1 - a) / (M - 1)), which grows on [1 / M, 1]; f(1) = h(y).

    Args:
        accuracy: a, in [1 / M, 1].
        classes: M, at least 2.
        labels: h(y) in nats, 0 .. ln M.

    Raises:
        UsageError: an argument out of range.
    """
    if (
        classes < 2
        or not 1 / classes - 1e-12 <= accuracy <= 1
        or not 0 <= labels < math.log(classes) + 1e-9
    ):
        raise UsageError("an accuracy lies in 1/M..1, and the labels' entropy in 0..ln M, with M > 1")
    wrong = 1 - accuracy
    return labels + float(xlogy(accuracy, accuracy) + xlogy(wrong, wrong / (classes - 1)))


def accuracy_bound(information: float, classes: int, labels: float) -> float:
    """Highest accuracy of any classifier of y that sees z: f^-1(I(y; z)), see `information_needed`.

    By the data processing inequality also from rates: I(y; z_L) <= I(x; z_L) <= R(z_L), and from layers
    l and above I(y; z_>=l) <= sum_k>=l r_k. For z_1 or a reconstruction that is the total rate, never
    r_1. 1 where the information is h(y) or more.

    Args:
        information: in nats, not negative.
    """
    if not information >= 0:
        raise UsageError("information is not negative")
    if information >= labels:
        return 1.0
    low, high = 1 / classes, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if information_needed(middle, classes, labels) <= information:
            low = middle
        else:
            high = middle
    return high


def distortion_bound(data_entropy: float, rates: Array) -> float:
    """Least D = E[-log p(x | z)] of any decoder that sees these layers: H - sum r_k.

    With all layers, D >= H - I(x; z) >= H - R. With those down to layer l, decoding a cut file: the
    rates above the cut bound their information in the same way.

    Args:
        rates: r_L .. r_l of the layers that the decoder sees, in nats.

    Raises:
        UsageError: a rate is below 0.
    """
    if np.min(rates, initial=0) < 0:
        raise UsageError("rates are not negative")
    return data_entropy - float(np.sum(rates))


def psnr_bound(data_entropy: float, rates: Array, sigma: float, dimensions: int) -> float:
    """Highest PSNR in dB for a Gaussian likelihood of fixed sigma, x in [0, 1].

    D = d MSE / (2 sigma^2) + d / 2 ln(2 pi sigma^2), so MSE >= 2 sigma^2 / d (H - R - d / 2 ln(2 pi
    sigma^2)). Infinite where the bound on the MSE is not above zero. H is a differential entropy. From
    `distortion_bound` and the Gaussian's D.

    Raises:
        UsageError: sigma or dimensions are not above 0.
    """
    if not (sigma > 0 and dimensions > 0):
        raise UsageError("sigma and dimensions are above 0")
    least = distortion_bound(data_entropy, rates) - dimensions / 2 * math.log(2 * math.pi * sigma**2)
    mse = 2 * sigma**2 / dimensions * least
    return -10 * math.log10(mse) if mse > 0 else math.inf


class Inception(NamedTuple):
    """Inception score of samples under a classifier, ln IS = H[y] - E H[y | x] = I(y; x).

    Attributes:
        log_score: in nats, 0 .. ln M.
        log_diversity: H[y].
        log_sharpness: -E H[y | x]; the three are exact: log_score is computed as a mean divergence.
    """

    log_score: float
    log_diversity: float
    log_sharpness: float


def inception(probabilities: Array) -> Inception:
    """Inception score (Salimans et al. 2016), split into diversity and sharpness.

    Args:
        probabilities: p(y | x) of samples x, N x M, float64; rows sum to 1.
    """
    mean = probabilities.mean(0)
    divergence = (xlogy(probabilities, probabilities) - xlogy(probabilities, mean)).sum(1)
    return Inception(
        float(divergence.mean()), float(entropy(mean)), -float(entropy(probabilities).mean())
    )


def sharpness_gap_bound(gap: float, classes: int) -> float:
    """How far apart mean H[y | x] of samples and of reconstructions can be.

    |difference| <= ln M TV <= ln M sqrt(gap / 2) with gap = R - I(x; z) <= R + D - H, by Pinsker:
    samples and reconstructions differ only in the distribution of z. Says nothing beyond 2 nats.
    """
    return math.log(classes) * _total_variation(gap)


def diversity_gap_bound(gap: float, classes: int) -> float:
    """How far apart H[y] of samples and of data can be, under the same classifier.

    |difference| <= t ln(M - 1) + h(t), t = TV <= sqrt(gap / 2) with gap = R + D - H, which bounds
    KL[p_data || p_model] (Pinsker, and Audenaert's form of Fannes' inequality, 2007). At most ln M.
    """
    t = min(_total_variation(gap), 1 - 1 / classes)
    return t * math.log(classes - 1) + float(entropy(np.array([t, 1 - t])))


def _total_variation(gap: float) -> float:
    """The largest at a divergence of `gap` nats: Pinsker's inequality."""
    return min(1.0, math.sqrt(max(gap, 0) / 2))


class Information(NamedTuple):
    """An estimate of I_q(y; z) under the distribution of N given pictures.

    Attributes:
        nats: the estimate, an upper bound for a classifier of those pictures.
        chance: the same with labels at random, whose true information is nothing: all of it is error.
        saturated: the error is a tenth of the labels' entropy or more; the estimate then says nothing.
    """

    nats: float
    chance: float
    saturated: bool


def information(
    z: Array, mean: Array, scale: Array, labels: Array, rng: np.random.Generator
) -> Information:
    """I_q(y; z) = E ln(mean over i with y_i = y of q(z | x_i) / mean over all i of q(z | x_i)).

    Each z is scored against mixtures that hold its own posterior, so the estimate goes to h(y) whatever
    the labels are, once the rate is near ln N (the official code's estimator has the same property).
    Labels in random order show how far that has gone.

    Args:
        z: samples of q(z | x_j) for the first n of the pictures, n x d.
        mean, scale: q(z | x_i) for all N pictures, N x d.
        labels: 0 .. M - 1 for all N.
        rng: puts the labels in random order.
    """
    precision = scale**-2.0
    constant = -0.5 * (precision * mean**2).sum(1) - np.log(scale).sum(1)
    orders = [labels, rng.permutation(labels)]
    hots = [np.eye(labels.max() + 1)[order] for order in orders]
    totals = np.zeros(2)
    for first in range(0, len(z), CHUNK):
        part = z[first : first + CHUNK]
        density = (part * -0.5 * part) @ precision.T + part @ (precision * mean).T + constant
        density = np.exp(density - density.max(1, keepdims=True))
        for k, (order, hot) in enumerate(zip(orders, hots)):
            own = order[first : first + len(part)]
            with np.errstate(divide="ignore"):
                share = np.log(density @ hot) - np.log(hot.sum(0))
            mixture = np.log(density.sum(1)) - math.log(len(labels))
            totals[k] += (share[np.arange(len(part)), own] - mixture).sum()
    nats, chance = totals / len(z)
    return Information(float(nats), float(chance), bool(chance > SATURATED * label_entropy(labels)))


def information_of_classifier(log_probabilities: Array, labels: Array) -> float:
    """Lower bound of I(y; z): h(y) - E[-ln p(y | z)] of a classifier (Barber & Agakov, 2003).

    Args:
        log_probabilities: ln p(y | z), N x M, on pictures that the classifier has not seen.
    """
    normal = log_probabilities - logsumexp(log_probabilities, 1, keepdims=True)
    return label_entropy(labels) + float(normal[np.arange(len(labels)), labels].mean())
