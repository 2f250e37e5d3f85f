"""One cell of the grid: what to train, and the loop that trains it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from ..errors import UsageError
from .data import SETS, Split
from .models import COLOUR, COLOUR_WIDE, FAMILIES, MNIST, MNIST_WIDE, TINY, Hierarchy, Preset, make
from .objective import losses

BETA_RANGE = (0.1, 10.0)
EVEN = 0.1  # share of the examples of a second round whose weights are drawn evenly
EDGE = 0.3  # settings are drawn from this much more, ln, at each end, and those beyond are at the end
# Shares of the steps over which the rate of learning rises at the start, and falls to zero at the end.
# Without the rise hidden units die, and z_2 with them, even where its rate is the cheaper one.
RISE, DECAY = 0.1, 0.4
WARM_UP = 0.2  # share of the steps over which a ladder's rates get their weights
CLIP = 300.0  # of the gradient's norm, nats: only for accidents

PRESETS: dict[str, Preset] = {
    "mnist": MNIST,
    "mnist-wide": MNIST_WIDE,
    "colour": COLOUR,
    "colour-wide": COLOUR_WIDE,
    "colour-learned": Preset(3, 32, 32, (32,), 256, sigma=0.1, learn_sigma=True),
    "tiny": TINY,
}


@dataclass(frozen=True)
class Cell:
    """What to train.

    Attributes:
        data, preset, family: names in `data.SETS`, `PRESETS` and `models.FAMILIES`.
        beta: rate weights, coarse first, one per layer (2 or 3): beta_L .. beta_1; above 0.
        amortised: whether the model takes the weights as an input; each example of a batch then draws
            its own, the larger of two log-uniform draws in `BETA_RANGE` (high weights, where rates that
            buy nothing must vanish, are the harder ones), or in a second round one draw each with
            probability `EVEN`; and `beta` only says how many there are. What is minimised is the mean
            of ln(D - the least D + sum_l beta_l R_l), so that 1 % counts the same at all weights.
        sent: probability that a picture's stream ends after each layer, coarse first; sums to 1. By
            default all layers are always sent. Otherwise the objective is
            sum_l sent_l (D after layer l + sum_k beta_k r_k over the layers sent).
        first: steps of a first round, from fresh weights. What is trained then starts from the best
            network, by this cell's objective on validation pictures, that the first rounds of all cells
            of the same run and seed have left: an optimum that training misses at some weights is
            often found at others. 0: one round, from fresh weights.
        steps, batch, rate: of Adam.
        seed: of weights, order and samples.
    """

    data: str = "mnist"
    preset: str = "mnist"
    family: str = "free"
    beta: tuple[float, ...] = (1.0, 1.0)
    amortised: bool = False
    sent: tuple[float, ...] = ()
    first: int = 0
    steps: int = 4000
    batch: int = 128
    rate: float = 3e-3
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError for what cannot be."""
        for kind, name, names in (
            ("sets of pictures", self.data, SETS),
            ("presets", self.preset, PRESETS),
            ("families", self.family, FAMILIES),
        ):
            if name not in names:
                raise UsageError(f"{kind} are {', '.join(names)}")
        if len(self.beta) not in (2, 3):
            raise UsageError("models have two or three layers, and a rate weight for each")
        if not all(0 < b < math.inf for b in self.beta) or min(self.steps, self.batch, self.rate) <= 0:
            raise UsageError("rate weights, steps, batch and rate must be above 0")
        if self.first < 0:
            raise UsageError("a first round has no less than 0 steps")
        proper = len(self.sent) == len(self.beta) and min(self.sent, default=0) >= 0
        if self.sent and not (proper and abs(sum(self.sent) - 1) <= 1e-6):
            raise UsageError("give one probability for each layer, 1 in all")
        if self.sent and self.family == "bottom-up":
            raise UsageError("a bottom-up model cannot be cut")
        if self.amortised and PRESETS[self.preset].learn_sigma:
            raise UsageError("of a learned sigma the least distortion is not known")

    @property
    def name(self) -> str:
        """A file name that says all of it."""
        weights = "any" if self.amortised else "_".join(f"{b:g}" for b in self.beta)
        cuts = "-sent" + "_".join(f"{p:g}" for p in self.sent) if self.sent else ""
        first = f"{self.first}+" if self.first else ""
        return (
            f"{self.data}-{self.preset}-{self.family}-{len(self.beta)}-beta{weights}{cuts}"
            f"-n{first}{self.steps}x{self.batch}-r{self.rate:g}-s{self.seed}"
        )

    @property
    def round_one(self) -> "Cell":
        """What is trained before a cell of two rounds."""
        return replace(self, first=0, steps=self.first)

    def model(self) -> Hierarchy:
        """The model, with fresh weights."""
        return make(self.family, PRESETS[self.preset].with_layers(len(self.beta)), self.amortised)


def train(cell: Cell, data: Split, start: Hierarchy | None = None, quiet: bool = True) -> Hierarchy:
    """Minimise the cell's objective by Adam, on a GPU if there is one; then the model is on the CPU.

    Deterministic on one processor and number of threads.

    Args:
        data: pictures to train on.
        start: the model to go on from, which is changed; by default one with fresh weights.
        quiet: without a progress bar.

    Raises:
        ArithmeticError: it diverged.
    """
    torch.manual_seed(cell.seed)
    rng = np.random.default_rng(cell.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = (cell.model() if start is None else start.train()).to(device)
    optimiser = torch.optim.Adam(model.parameters(), cell.rate, fused=True)
    beta = torch.tensor(cell.beta, device=device)
    low, high = np.log(BETA_RANGE)
    order = np.empty(0, np.int64)
    for step in tqdm(range(cell.steps), disable=quiet, desc=cell.name):
        if len(order) < cell.batch:
            order = np.concatenate([order, rng.permutation(len(data.x))])
        x, order = data.batch(order[: cell.batch]).to(device), order[cell.batch :]
        for group in optimiser.param_groups:
            group["lr"] = cell.rate * min(
                1.0, (step + 1) / cell.steps / RISE, (1 - step / cell.steps) / DECAY
            )
        weights, setting = beta, None
        if cell.amortised:
            two = rng.uniform(low - EDGE, high + EDGE, (2, len(x), len(beta)))
            even = cell.first > 0 and rng.random((len(x), 1)) < EVEN
            drawn = np.where(even, two[0], two.max(0)).clip(low, high)
            setting = torch.from_numpy(drawn).float().to(device)
            weights = setting.exp()
        if cell.family == "ladder" and start is None:
            weights = weights * min(1.0, (step + 1) / (WARM_UP * cell.steps))
        layers = 1 + int(rng.choice(len(beta), p=cell.sent)) if cell.sent else None
        each = losses(model, x, setting, layers).weighted(weights)
        loss = (each - model.preset.least).log().mean() if cell.amortised else each.mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        if not math.isfinite(loss.item()):
            raise ArithmeticError(f"{cell.name} diverged at step {step}")
    return model.cpu().eval()
