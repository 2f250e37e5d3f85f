"""What a trained model is worth: rates, distortion, and how its layers serve three tasks.

Classifiers of latents are fitted on training pictures; all numbers are for pictures held out. From the
top layer they are given both the mean of q(z_L | x), as in the paper's code, and one sample: bounds by
I(y; z) hold for the second only (a mean may tell what a noisy sample hides).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor

from ..errors import UsageError
from ..exact import Array
from . import theory
from .classifier import Classifier
from .data import Data, Split
from .models import BottomUp, Gaussian, Hierarchy
from .objective import complete, infer, losses

FIT = 5000  # training pictures that classifiers of latents see
SCORED = 2000  # samples that information is estimated from: those of the first pictures
SAMPLES, SPLITS = (500, 20), 5  # samples of z_L, pictures for each; parts for the spread of the score
BATCH = 500

Beta = Sequence[float]  # rate weights, coarse first


def mean(q: Gaussian) -> Tensor:
    """For `infer`: the mean of each posterior in place of a sample."""
    return q.mean


def _batches(
    data: Split, model: Hierarchy, beta: Beta | None = None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for first in range(0, len(data.x), BATCH):
        x = data.batch(slice(first, first + BATCH))
        yield x, setting(model, beta, len(x))


def setting(model: Hierarchy, beta: Beta | None, count: int) -> Tensor | None:
    """Rate weights as a model takes them, for a batch of `count`: ln beta, or None if it takes none.

    Raises:
        UsageError: an amortised model needs them.
    """
    if not model.amortised:
        return None
    if beta is None or len(beta) != model.layers:
        raise UsageError(f"this model takes {model.layers} rate weights")
    return torch.tensor(beta).log().expand(count, -1)


@torch.no_grad()
def rates(model: Hierarchy, data: Split, beta: Beta | None = None, seed: int = 0) -> dict[str, Any]:
    """Means over pictures, in nats: every layer's rate, and the distortion.

    Args:
        beta: what an amortised model is told.
    """
    torch.manual_seed(seed)
    found = [losses(model, *batch) for batch in _batches(data, model, beta)]
    return {
        "rates": torch.cat([f.rates for f in found]).double().mean(0).tolist(),
        "distortion": float(torch.cat([f.distortion for f in found]).double().mean()),
    }


def objective(found: dict[str, Any], beta: Beta) -> float:
    """D + sum_l beta_l R_l in nats, of what `rates` found."""
    return float(found["distortion"] + np.dot(beta, found["rates"]))


@torch.no_grad()
def latents(model: Hierarchy, data: Split) -> list[Array]:
    """Means of all layers, each given the means above; float64, N x d."""
    found = [[s.z for s in infer(model, *batch, mean)] for batch in _batches(data, model)]
    return [torch.cat(layer).double().numpy() for layer in zip(*found)]


@torch.no_grad()
def top(model: Hierarchy, data: Split) -> tuple[Array, Array, Array]:
    """A sample, mean and scale of q(z_L | x); float64, N x d."""
    found = []
    for x, _ in _batches(data, model):
        q = model.posterior([], model.observe(x))
        found.append((q.sample(), *q))
    z, centre, scale = (torch.cat(part).double().numpy() for part in zip(*found))
    return z, centre, scale


def accuracies(fit: Split, features: Array, held: list[tuple[Split, Array]]) -> dict[str, Any]:
    """Accuracy of three kinds of classifiers, for each set that is held out."""
    kinds = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "rbf-svm": make_pipeline(StandardScaler(), SVC()),
        "knn": make_pipeline(StandardScaler(), KNeighborsClassifier(5)),
    }
    for kind in kinds.values():
        kind.fit(features, fit.labels)
    return {name: [float(kind.score(f, s.labels)) for s, f in held] for name, kind in kinds.items()}


@torch.no_grad()
def reconstructions(
    model: Hierarchy, data: Split, judge: Classifier, beta: Beta | None = None
) -> dict[str, Any]:
    """PSNR in dB, from means as in the paper and from samples; and what the classifier sees in
    samples."""
    errors = np.zeros(2)
    told = []
    for x, given in _batches(data, model, beta):
        for k, draw in enumerate((mean, Gaussian.sample)):
            z = [s.z for s in infer(model, x, given, draw)]
            back = model.values(model.picture(z, given))
            errors[k] += float((back - x).square().double().sum())
        told.append(judge.probabilities(back))
    probabilities = np.concatenate(told)
    quality = -10 * np.log10(errors / data.x.size)
    return {
        "psnr": float(quality[0]),
        "psnr_of_samples": float(quality[1]),
        "accuracy": float((probabilities.argmax(1) == data.labels).mean()),
        "entropy": float(theory.entropy(probabilities).mean()),
    }


@torch.no_grad()
def cuts(model: Hierarchy, data: Split) -> list[dict[str, float]]:
    """Distortion and PSNR of decoding from no layer, from the top one, ..., from all."""
    totals = np.zeros((model.layers + 1, 2))
    for x, _ in _batches(data, model):
        z = [s.z for s in infer(model, x)]
        for kept in range(model.layers + 1):
            picture = model.picture(complete(model, z[:kept], len(x)))
            error = (model.values(picture) - x).square().double().sum()
            totals[kept] += float(model.distortion(picture, x).double().sum()), float(error)
    return [
        {"distortion": d / len(data.x), "psnr": float(-10 * np.log10(e / data.x.size))}
        for d, e in totals
    ]


@torch.no_grad()
def samples(model: Hierarchy, judge: Classifier) -> dict[str, Any]:
    """Inception-style score of samples from the model, in parts, and I_p(y; z_L) of the same samples.

    The last is an upper estimate: H[y | z_L] is of a mean over 20 pictures each.
    """
    tops, each = SAMPLES
    torch.manual_seed(0)
    found = []
    for _ in range(tops * each // BATCH):
        first = model.prior([], BATCH // each).sample().repeat_interleave(each, 0)
        z = [first]
        while len(z) < model.layers:
            z.append(model.prior(z, BATCH).sample())
        found.append(judge.probabilities(model.values(model.picture(z))))
    probabilities = np.concatenate(found)
    parts = [theory.inception(part) for part in np.split(probabilities, SPLITS)]
    given_top = probabilities.reshape(tops, each, -1).mean(1)
    return {
        "parts": [part._asdict() for part in parts],
        "whole": theory.inception(probabilities)._asdict(),
        "information_top": theory.inception(given_top).log_score,
    }


def score(model: Hierarchy, data: Data, judge: Classifier) -> dict[str, Any]:
    """All of it, of a model that takes no rate weights; validation before test where there are two."""
    if isinstance(model, BottomUp):
        return {"rates": [rates(model, s) for s in (data.val, data.test)]}
    rng = np.random.default_rng(0)
    fit, held = data.train.part(slice(FIT)), [data.val, data.test]
    torch.manual_seed(0)
    z, centre, scale = top(model, data.test)
    told = theory.information(z[:SCORED], centre, scale, data.test.labels, rng)
    names = [f"z{layer}" for layer in range(model.layers, 0, -1)]
    means = list(zip(*(latents(model, s) for s in (fit, *held))))
    drawn = [top(model, s)[0] for s in (fit, data.val)]
    features = {name: layer for name, layer in zip(names, means)}
    features[f"{names[0]} sample"] = (*drawn, z)
    return {
        "rates": [rates(model, s) for s in held],
        "reconstructions": [reconstructions(model, s, judge) for s in held],
        "accuracy": {
            name: accuracies(fit, f[0], list(zip(held, f[1:]))) for name, f in features.items()
        },
        "information": told._asdict(),
        "samples": samples(model, judge),
        "cuts": cuts(model, data.test),
        "data": {
            "test": len(data.test.x),
            "label_entropy": theory.label_entropy(data.test.labels),
            "judge": float(
                (judge.probabilities(data.test.batch(slice(None))).argmax(1) == data.test.labels).mean()
            ),
        },
    }
