"""Checkpoint -> model file: averaged weights in float16, integer tables, exact units, training card."""

import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from . import exact, files, modelfile, tables
from .data import Crops
from .errors import ModelError
from .model import Config, Model, Product
from .objective import objective
from .train import draw
from .transform import WEIGHT_UNIT

CALIBRATION = 16, 4, 128  # batches, crops in each, their size


def card_of(state: dict) -> dict:
    """The training card of a checkpoint: everything needed to make the model again."""
    return {
        "format": 0,
        "config": state["config"],
        "training": {
            "recipe": state["recipe"],
            "data_sha256": state["data_sha256"],
            **state["counters"],
            "torch": torch.__version__,
            "hvcodec": version("hvcodec"),
            "date": time.strftime("%Y-%m-%d"),
        },
    }


def products(model: Model) -> Iterator[Product]:
    """The products that decoding needs, in the order of their definition."""
    for name, module in model.named_modules():
        if isinstance(module, Product) and not name.startswith("analysis"):
            yield module


@torch.no_grad()
def make_exact(product: Product) -> tuple[int, int]:
    """Round weights as at run time; returns log2 of the unit of the inputs, and their limit."""
    terms = product.terms()
    weights, biases = terms[0].numpy(), None if terms[1] is None else terms[1].numpy()
    exponent, limit = exact.grid_of(weights, biases, product.largest or 0.0)
    product.grid, product.largest = (2.0**exponent, limit), None
    for target, rounded in zip(terms, exact.rounded(weights, biases, *product.grid)):
        if target is not None:
            target.copy_(torch.from_numpy(rounded))
    return exponent, limit


@torch.no_grad()
def costs(model: Model, crops: Crops) -> torch.Tensor:
    """log J of some training pictures at all kinds of rates and rate weights."""
    batches, count, size = CALIBRATION
    rng = np.random.default_rng(0)
    found = []
    for batch in range(batches):
        pixels = torch.from_numpy(crops.batch(batch, count, size)).permute(0, 3, 1, 2).float() - 128
        drawn = draw(rng, count)
        steps, present = torch.from_numpy(drawn.steps), torch.from_numpy(drawn.present)
        with torch.compiler.set_stance("force_eager"):
            rate, mse = objective(model, pixels, steps, present)
        lam, beta = torch.from_numpy(drawn.lam), torch.from_numpy(drawn.beta)
        found.append(((beta * rate).sum(1) + lam * mse).log())
    return torch.cat(found)


def export(checkpoint: Path, target: Path) -> str:
    """Write the model file of a checkpoint; returns the model's id.

    The network in the file is exact (`exact.py`); what that costs, in percent of J on pictures of the
    training, is noted in its card.

    Args:
        checkpoint: in the folder of its run, where the packed pictures are too.

    Raises:
        ModelError: the checkpoint cannot be read.
        HvcError: the file cannot be written.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model = Model(Config.from_dict(state["config"]))
        average = {
            k.removeprefix("module."): v for k, v in state["average"].items() if k.startswith("module.")
        }
        model.load_state_dict({k: v.half() for k, v in average.items()})
        crops = Crops(checkpoint.parent / "pictures.bin", state["recipe"]["seed"])
    except (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, UnpicklingError):
        raise ModelError(f"{checkpoint} is not a training checkpoint of this version") from None
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    counts, reaches = tables.make(tensors["tail"].float().numpy())
    tensors["tables.counts"] = torch.from_numpy(counts)
    tensors["tables.reaches"] = torch.from_numpy(reaches)
    model.eval().requires_grad_(False)
    found = list(products(model))
    for product in found:
        product.largest = 0.0
    before = costs(model, crops)
    try:
        grids = [make_exact(product) for product in found]
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("analysis"):
                module.weight.copy_(torch.from_numpy(exact.rounded_condition(module.weight.numpy())))
    except ValueError as error:
        raise ModelError(f"{checkpoint} cannot be made exact: {error}") from None
    turns = torch.round(model.transform.turns() / WEIGHT_UNIT).to(torch.int16)
    tensors |= {"exact.grids": torch.tensor(grids, dtype=torch.int16), "exact.turns": turns}
    price = 100 * (float((costs(model, crops) - before).mean().exp()) - 1)
    card = card_of(state) | {"exact_price_percent": round(price, 3)}
    data = save(tensors, {"hvcodec": json.dumps(card, sort_keys=True)})
    model_id = modelfile.identify(data)
    files.write(target, data)
    return model_id
