"""Checkpoint -> model file: averaged weights in float16, integer tables, exact units, training card."""

import json
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from . import exact, files, modelfile, tables
from .data import Crops
from .errors import ModelError
from .lossless_model import Config as LosslessConfig
from .lossless_model import LosslessModel
from .model import Config, Model, Product
from .objective import coded, objective
from .train import Draw, draw
from .trainer import read
from .transform import WEIGHT_UNIT

CALIBRATION = 16, 4, 128  # batches, crops in each, their size


def training_of(state: dict) -> dict:
    """What a model's card says of a training."""
    return {
        "recipe": state["recipe"],
        "data_sha256": state["data_sha256"],
        **state["counters"],
        "torch": torch.__version__,
        "hvcodec": version("hvcodec"),
        "date": time.strftime("%Y-%m-%d"),
    }


def products(network: nn.Module) -> list[Product]:
    """The products that decoding needs, in the order of their definition."""
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, Product) and not name.startswith("analysis")
    ]


def make_exact(network: nn.Module) -> Tensor:
    """Round weights as at run time; returns log2 of the unit of the inputs of each product, and their
    limit.

    Raises:
        ModelError: the network cannot be made exact.
    """
    grids = []
    try:
        for product in products(network):
            terms = product.terms()
            weights, biases = terms[0].numpy(), None if terms[1] is None else terms[1].numpy()
            exponent, limit = exact.grid_of(weights, biases, product.largest or 0.0)
            product.grid, product.largest = (2.0**exponent, limit), None
            for target, rounded in zip(terms, exact.rounded(weights, biases, *product.grid)):
                if target is not None:
                    target.copy_(torch.from_numpy(rounded))
            grids.append((exponent, limit))
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("analysis"):
                module.weight.copy_(torch.from_numpy(exact.rounded_condition(module.weight.numpy())))
    except ValueError as error:
        raise ModelError(f"the network cannot be made exact: {error}") from None
    return torch.tensor(grids, dtype=torch.int16)


def batches(crops: Crops) -> Iterator[tuple[Tensor, Draw]]:
    """Some training pictures, and all kinds of rates and rate weights for them."""
    count, examples, size = CALIBRATION
    rng = np.random.default_rng(0)
    for batch in range(count):
        pixels = torch.from_numpy(crops.batch(batch, examples, size)).permute(0, 3, 1, 2).float() - 128
        yield pixels, draw(rng, examples)


def costs(model: Model, crops: Crops) -> Tensor:
    """log J of some training pictures at all kinds of rates and rate weights."""
    found = []
    for pixels, drawn in batches(crops):
        steps, present = torch.from_numpy(drawn.steps), torch.from_numpy(drawn.present)
        with torch.compiler.set_stance("force_eager"):
            rate, mse = objective(model, pixels, steps, present)
        lam, beta = torch.from_numpy(drawn.lam), torch.from_numpy(drawn.beta)
        found.append(((beta * rate).sum(1) + lam * mse).log())
    return torch.cat(found)


def lossless_costs(lossless: LosslessModel, model: Model, crops: Crops) -> Tensor:
    """log of the bits of the pixels of some training pictures."""
    found = []
    for pixels, drawn in batches(crops):
        steps = torch.from_numpy(drawn.steps)
        with torch.compiler.set_stance("force_eager"):
            _, shown = coded(model, pixels, steps, steps)
        found.append(lossless(pixels + 128, shown + 128, Model.condition(steps)).sum(1).log())
    return torch.cat(found)


def rounded(network: nn.Module, measure: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Make a network exact: grids of its products, and what that costs in percent.

    Args:
        measure: logarithms of costs, of everything that the products have to expect.
    """
    network.eval().requires_grad_(False)
    for product in products(network):
        product.largest = 0.0
    before = measure()
    grids = make_exact(network)
    return grids, round(100 * (float((measure() - before).mean().exp()) - 1), 3)


Trained = TypeVar("Trained", Model, LosslessModel)


def _averaged(checkpoint: Path, make: Callable[[dict], Trained]) -> tuple[Trained, dict]:
    """A run's network with averaged weights as they are kept, and its state.

    Raises:
        ModelError: the checkpoint cannot be read.
    """
    state = read(checkpoint)
    try:
        network = make(state["config"])
        average = {
            k.removeprefix("module."): v for k, v in state["average"].items() if k.startswith("module.")
        }
        network.load_state_dict({k: v.half() for k, v in average.items()})
        return network, state
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError):
        raise ModelError(f"{checkpoint} is not a training checkpoint of this version") from None


@torch.no_grad()
def export(checkpoint: Path, target: Path, lossless: Path | None = None) -> str:
    """Write the model file of a checkpoint; returns the model's id.

    The network in the file is exact (`exact.py`); what that costs, in percent of J on pictures of the
    training, is noted in its card.

    Args:
        checkpoint: in the folder of its run, where the packed pictures are too.
        lossless: likewise, of the training of a lossless layer.

    Raises:
        ModelError: a checkpoint cannot be read.
        HvcError: the file cannot be written.
    """
    model, state = _averaged(checkpoint, lambda sizes: Model(Config.from_dict(sizes)))
    packed = checkpoint.parent / "pictures.bin"
    if not packed.exists():
        raise ModelError(f"{packed}, the packed pictures of the training, is not there")
    crops = Crops(packed, state["recipe"]["seed"])
    card = {"format": 0, "config": state["config"], "training": training_of(state)}
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    counts, reaches = tables.make(tensors["tail"].float().numpy())
    tensors["tables.counts"] = torch.from_numpy(counts)
    tensors["tables.reaches"] = torch.from_numpy(reaches)
    grids, card["exact_price_percent"] = rounded(model, lambda: costs(model, crops))
    turns = torch.round(model.transform.turns() / WEIGHT_UNIT).to(torch.int16)
    tensors |= {"exact.grids": grids, "exact.turns": turns}
    if lossless:
        layer, state = _averaged(lossless, lambda sizes: LosslessModel(LosslessConfig.from_dict(sizes)))
        tensors |= {f"lossless.{k}": v.half().contiguous() for k, v in layer.state_dict().items()}
        grids, price = rounded(layer, lambda: lossless_costs(layer, model, crops))
        tensors["exact.lossless"] = grids
        sizes = {"config": state["config"], "training": training_of(state)}
        card["lossless"] = sizes | {"exact_price_percent": price}
    data = save(tensors, {"hvcodec": json.dumps(card, sort_keys=True)})
    model_id = modelfile.identify(data)
    files.write(target, data)
    return model_id
