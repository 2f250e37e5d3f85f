"""Trains a tiny model; `test_train.py` runs it under torchrun and alone.

    several_processes.py PACKED_FOLDER OUT CONFIG PIXELS

Goes on from the folder's checkpoint if there is one. Every process writes its weights to OUT/RANK.pt.
"""

import json
import sys
from pathlib import Path

import torch

from hvcodec import processes, train, trainer
from hvcodec.model import Config

folder, out, config, pixels = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
trainer.fast_dtype = lambda: torch.float32  # so that rounding stays small
torch.rand_like = lambda like: torch.full_like(like, 0.5)  # noise differs between processes
recipe = trainer.Recipe(
    pixels=pixels, batch_pixels=4 * 64 * 64, crop=((0.0, 64),), warmup=1, decay=1e-9, rate=1e-4
)
with processes.joined():
    run = train.PhotoTrainer(folder, recipe, Config.from_dict(json.loads(config)))
    if (folder / "checkpoint.pt").exists():
        run.load()
    else:
        run.start(None)
    run.run(log_every=1)
    torch.save(run.model.state_dict(), out / f"{processes.rank()}.pt")
