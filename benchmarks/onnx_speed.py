"""Decoding with the package (numpy) and with onnxruntime, in turns: seconds of clock and processor.

    hvcodec export-onnx photo7 GRAPHS
    python benchmarks/onnx_speed.py GRAPHS PICTURE OUT.json

The decoder that runs the graphs, `tests/onnx_decoder.py`, is made to be read, not to be fast: only what
its graphs take is counted, and of the package's decoder all but the popping of symbols. Where others
use the machine, compare the processor's seconds.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from onnx_decoder import Graphs, decode

import hvcodec
from hvcodec import ans, encoder

ROUNDS, THREADS = 9, 2


def now() -> np.ndarray:
    """Clock and processor, seconds."""
    return np.array([time.perf_counter(), time.process_time()])


class Timed:
    """A function whose time is added up."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, np.zeros(2)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        start = now()
        found = self.function(*arguments, **named)
        self.seconds += now() - start
        return found


def main(folder: Path, picture: Path, out: Path) -> None:
    with mock.patch.object(encoder, "fit", lambda *_: None):  # nor what follows the network
        data = hvcodec.encode(Image.open(picture), bits_back=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # Threads that wait would count as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graphs = Graphs(folder, options)
    assert (decode(data, graphs) == np.asarray(hvcodec.decode(data))).all()
    numpy, onnx = [], []
    for _ in range(ROUNDS):
        pop, whole = Timed(ans.Stack.pop), Timed(hvcodec.decode)
        with mock.patch.object(ans.Stack, "pop", lambda *a, pop=pop: pop(*a)):
            whole(data)
        numpy.append(whole.seconds - pop.seconds)
        run = Timed(graphs.run)
        with mock.patch.object(graphs, "run", run):
            decode(data, graphs)
        onnx.append(run.seconds)
    result: dict[str, Any] = {"version": onnxruntime.__version__, "threads": THREADS}
    for name, seconds in (("numpy", numpy), ("onnxruntime", onnx)):
        for kind, values in zip(("clock", "processor"), np.array(seconds).T):
            result[f"{name}, {kind}"] = {
                "median": round(statistics.median(values), 3),
                "least": round(min(values), 3),
            }
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
