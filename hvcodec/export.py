"""Checkpoint -> model file: the averaged weights in float16, integer tables, training card."""

import json
import time
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import save

from . import files, modelfile, tables
from .errors import ModelError
from .model import Config, Model


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


def export(checkpoint: Path, target: Path) -> str:
    """Write the model file of a checkpoint; returns the model's id.

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
        model.load_state_dict(average)
    except (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, UnpicklingError):
        raise ModelError(f"{checkpoint} is not a training checkpoint of this version") from None
    tensors = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    counts, reaches = tables.make(tensors["tail"].float(), tensors["falloff"].float())
    tensors["tables.counts"] = torch.from_numpy(counts)
    tensors["tables.reaches"] = torch.from_numpy(reaches)
    data = save(tensors, {"hvcodec": json.dumps(card_of(state), sort_keys=True)})
    model_id = modelfile.identify(data)
    files.write(target, data)
    return model_id
