"""Training pictures: packed once as raw bytes, then read as random crops from memory-mapped memory."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from . import files, picture
from .errors import HvcError, PictureError


def pack(folder: Path, target: Path) -> None:
    """Write all pictures of a folder as RGB bytes to `target` and their sizes beside it (.json).

    Pictures that cannot be read are named and left out.

    Raises:
        HvcError: no picture in the folder can be read.
    """
    shapes = []
    digest = hashlib.sha256()
    unfinished = target.with_suffix(".part")
    with open(unfinished, "wb") as out:
        for path, _ in files.find([str(folder)], files.PICTURES):
            try:
                raw = picture.from_image(picture.open_picture(files.read(path))).rgb
            except HvcError as error:
                print(f"left out: {path}: {error}", file=sys.stderr)
                continue
            shapes.append(raw.shape[:2])
            data = raw.tobytes()
            digest.update(data)
            out.write(data)
    if not shapes:
        unfinished.unlink()
        raise PictureError(f"no pictures in {folder}")
    index = {"shapes": shapes, "sha256": digest.hexdigest()}
    target.with_suffix(".json").write_text(json.dumps(index))
    unfinished.rename(target)


class Crops:
    """Random crops from a packed file; crop number n of a seed is always the same one."""

    def __init__(self, packed: Path, seed: int) -> None:
        index = json.loads(packed.with_suffix(".json").read_text())
        self.sha256: str = index["sha256"]
        self.seed = seed
        self.shapes = np.array(index["shapes"])
        areas = self.shapes.prod(1)
        self.starts = np.concatenate([[0], np.cumsum(areas[:-1] * 3)])
        self.odds = areas / areas.sum()
        self.memory = np.memmap(packed, np.uint8, "r")

    def batch(self, step: int, count: int, size: int, share: slice = slice(None)) -> np.ndarray:
        """Those that `share` takes of `count` crops of size x size pixels, mirrored and turned.

        Pictures smaller than the crop are padded by reflection.

        Returns:
            uint8 N x size x size x 3.
        """
        rng = np.random.default_rng([self.seed, step])
        places = []
        for k in rng.choice(len(self.odds), count, p=self.odds):
            spare = np.maximum(self.shapes[k] - size, 0)
            places.append((k, *(rng.integers(n + 1) for n in spare), *rng.integers(2, size=3)))
        places = places[share]
        crops = np.empty((len(places), size, size, 3), np.uint8)
        for i, (k, y, x, mirrored, upside_down, turned) in enumerate(places):
            height, width = self.shapes[k]
            start = self.starts[k]
            pixels = self.memory[start : start + height * width * 3].reshape(height, width, 3)
            crop = pixels[y : y + size, x : x + size]
            missing = [(0, size - n) for n in crop.shape[:2]]
            if any(after for _, after in missing):
                crop = np.pad(crop, [*missing, (0, 0)], "symmetric")
            if mirrored:
                crop = crop[:, ::-1]
            if upside_down:
                crop = crop[::-1]
            if turned:
                crop = crop.transpose(1, 0, 2)
            crops[i] = crop
        return crops
