"""A hierarchical model over a handful of states, whose rates and information are exact sums.

Two layers z_2, z_1 and data x, all with few states and random tables. The posterior is either top-down,
q(z_2 | x) q(z_1 | z_2, x), or bottom-up, q(z_1 | x) q(z_2 | z_1): for the second the rate does not
split into one divergence per layer (Xiao & Bamler 2023, section on the class of inference models).
"""

from dataclasses import dataclass

import numpy as np

from ..exact import Array
from .theory import entropy


@dataclass(frozen=True)
class Toy:
    """Tables, float64.

    Attributes:
        data: p(x), X.
        joint: q(x, z_2, z_1), X x A x B.
        prior: p(z_2, z_1), A x B.
        likelihood: p(x | z_1), B x X.
    """

    data: Array
    joint: Array
    prior: Array
    likelihood: Array

    def divergence(self, layers: str) -> float:
        """E KL of q over p, each given x; for `layers` "21" both, for "2" the first.

        R and R(z_2), for a top-down posterior.
        """
        if layers == "21":
            ratio = np.log(self.joint / self.data[:, None, None] / self.prior)
            return float((self.joint * ratio).sum())
        coarse = self.joint.sum(2)
        return float((coarse * np.log(coarse / self.data[:, None] / self.prior.sum(1))).sum())

    @property
    def charged(self) -> float:
        """E KL[q(z_2 | z_1) || p(z_2)]: what a bottom-up model has to call the rate of z_2."""
        return (
            self._entropy("1")
            - self._entropy("21")
            - float((self.joint.sum((0, 2)) * np.log(self.prior.sum(1))).sum())
        )

    @property
    def entropy(self) -> float:
        """H, in nats."""
        return self._entropy("x")

    @property
    def distortion(self) -> float:
        """D = E[-ln p(x | z_1)]."""
        return -float((self.joint.sum(1) * np.log(self.likelihood.T)).sum())

    @property
    def distortion_of_cut(self) -> float:
        """E[-ln p(x | z_2)]: what the decoder of a file that ends after z_2 can do."""
        below = self.prior / self.prior.sum(1, keepdims=True)
        return -float((self.joint.sum(2) * np.log(below @ self.likelihood).T).sum())

    def information(self, axes: str, given: str = "") -> float:
        """I_q(x; a | b) in nats; a and b are of "2", "1" and "21"."""
        both = given + axes
        return (
            self._entropy("x" + given)
            + self._entropy(both)
            - self._entropy("x" + both)
            - self._entropy(given)
        )

    @property
    def noise(self) -> float:
        """I_q(z_1; z_2 | x): what the layers share beside x."""
        return self._entropy("x2") + self._entropy("x1") - self._entropy("x21") - self._entropy("x")

    def mismatch(self, layers: str) -> float:
        """KL of the aggregate q over p: "21", "2", or "1" for E KL[q(z_1 | z_2) || p(z_1 | z_2)]."""
        q = self.joint.sum(0)
        whole = float((q * np.log(q / self.prior)).sum())
        coarse = float((q.sum(1) * np.log(q.sum(1) / self.prior.sum(1))).sum())
        return {"21": whole, "2": coarse, "1": whole - coarse}[layers]

    def _entropy(self, axes: str) -> float:
        away = tuple(k for k, name in enumerate("x21") if name not in axes)
        return float(entropy(self.joint.sum(away).ravel()))


def random_toy(
    rng: np.random.Generator, bottom_up: bool = False, states: tuple[int, int, int] = (6, 3, 4)
) -> Toy:
    """Random tables with (X, A, B) states."""
    x, a, b = states
    data = rng.dirichlet(np.ones(x))
    if bottom_up:
        fine, coarse = rng.dirichlet(np.ones(b), x), rng.dirichlet(np.ones(a), b)
        posterior = np.einsum("xb,ba->xab", fine, coarse)
    else:
        coarse, fine = rng.dirichlet(np.ones(a), x), rng.dirichlet(np.ones(b), (x, a))
        posterior = coarse[..., None] * fine
    prior = rng.dirichlet(np.ones(a))[:, None] * rng.dirichlet(np.ones(b), a)
    return Toy(data, data[:, None, None] * posterior, prior, rng.dirichlet(np.ones(x), b))
