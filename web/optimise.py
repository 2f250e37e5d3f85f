"""Graphs as they are exported -> as the page has them: optimised beforehand, since a browser that has
to do it takes twice as long to start. Argument: a folder of folders of graphs."""

import sys
from pathlib import Path

import onnxruntime

for path in Path(sys.argv[1]).glob("*/*.onnx"):
    options = onnxruntime.SessionOptions()
    # No further: operators stay those of the standard, and sums those that are exact.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # not that the result is for machines like this one
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
