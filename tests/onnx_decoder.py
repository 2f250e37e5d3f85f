"""A decoder of onnxruntime, numpy and constriction alone, as docs/onnx.md describes it.

What is between the graphs is that of the second decoder, which shares no code with the package.

    python tests/onnx_decoder.py GRAPHS PHOTO.hvc PHOTO.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import second_decoder
from second_decoder import F


class Graphs(second_decoder.Tables):
    """What the second decoder needs of a network, from a folder of graphs."""

    def __init__(self, folder, options=None):
        about = json.loads((folder / "model.json").read_text())
        self.id = about["model"]
        self.passes = {(one["layer"], one["pass"], one["place"]): one for one in about["passes"]}
        self.grouped = len(self.passes) > 13
        counts = np.frombuffer((folder / "counts.bin").read_bytes(), "<i4")
        self.set_tables(counts, np.array(about["reaches"]))
        self.mixture = tuple(np.array(about[part], F) for part in ("ratios", "weights"))
        if "lossless" in about:
            self.exact = tuple(np.array(about["lossless"][part], F) for part in ("ratios", "weights"))
        self._folder, self._options, self._sessions = folder, options, {}

    def run(self, name, steps, **inputs):
        """Outputs of a graph, in the order of the page; arrays without and with the first axis of 1."""
        if name not in self._sessions:
            path = self._folder / f"{name}.onnx"
            self._sessions[name] = onnxruntime.InferenceSession(
                path, self._options, providers=["CPUExecutionProvider"]
            )
        arrays = {key: value if value.ndim == 1 else value[None] for key, value in inputs.items()}
        outputs = self._sessions[name].run(None, {"steps": np.array(steps, np.int32), **arrays})
        return [output[0] for output in outputs]

    def prior(self, k, p, n, steps, size, h, last):
        name = self.passes[k, p, n]["graph"]
        if last is None:
            return self.run(name, steps, size=np.array(size))
        value, residual = last
        found = self.run(name, steps, trunk=h, value=value, residual=residual)
        return [h, *found] if n else found

    def found(self, steps, h, last, values):
        names = {one["graph"]: values[k, p][one["channels"]] for (k, p, _), one in self.passes.items()}
        names.popitem()
        value, residual = last
        return np.concatenate(
            self.run("planes", steps, trunk=h, value=value, residual=residual, **names)
        )

    def picture(self, found, steps):
        return self.run("picture", steps, planes=found[:192], trunk=found[192:])

    def lossless_pass(self, p, steps, shown, h, d):
        before = {} if h is None else {"trunk": h, "differences": d}
        return self.run(f"lossless-{p}", steps, sixteenths=shown, **before)


def decode(data, graphs):
    """A file's bytes -> uint8 H x W x 3, or H x W if it is grey."""
    return second_decoder.decode(data, graphs)


if __name__ == "__main__":
    from PIL import Image

    folder, source, target = map(Path, sys.argv[1:])
    Image.fromarray(decode(source.read_bytes(), Graphs(folder))).save(target)
