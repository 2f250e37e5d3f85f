"""Whether files decode to the same symbols and pixels, whatever computes them.

    python benchmarks/decode_matrix.py OUT.json [--files FOLDER] [--python OTHER/bin/python ...]

The golden files of `tests/golden` must give what their index says, the files of a folder what they gave
in the first row. Each row decodes all of them in a process of its own: under other numbers of threads,
BLAS kernels and processor features; with every product over channels in float64, in random orders of
the channels, or by PyTorch under several of its settings, on a GPU too if there is one; and with other
interpreters, which may have other releases of numpy and PyTorch (hvcodec must be installed there).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
PLAIN: dict[str, str] = {}
FEATURES = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"
ROWS: list[tuple[str, dict[str, str]]] = [
    ("numpy", PLAIN),
    *(("numpy", {"OPENBLAS_NUM_THREADS": n, "WORKERS": n}) for n in ("1", "2", "4")),
    *(("numpy", {"OPENBLAS_CORETYPE": kind}) for kind in ("Prescott", "Nehalem", "Haswell", "Zen")),
    ("numpy", {"NPY_DISABLE_CPU_FEATURES": FEATURES}),
    ("float64", PLAIN),
    *(("shuffled", {"SEED": str(seed)}) for seed in range(10)),
    ("torch", PLAIN),
    *(("torch", {"ATEN_CPU_CAPABILITY": kind}) for kind in ("default", "avx2", "avx512")),
    *(("torch", {"ONEDNN_MAX_CPU_ISA": kind}) for kind in ("SSE41", "AVX2")),
    ("torch", {"ONEDNN": "off"}),
    ("cuda", PLAIN),
]

DECODE = """
import importlib.metadata, json, os, sys
sys.path.insert(0, sys.argv[1])
kind = sys.argv[2]
try:
    import numpy as np
    if kind in ("torch", "cuda"):
        import torch
        torch.backends.mkldnn.enabled = os.environ.get("ONEDNN") != "off"
        if kind == "cuda" and not torch.cuda.is_available():
            raise ImportError("no GPU")
except ImportError as error:
    print(json.dumps({"left out": str(error)}))
    sys.exit()
from hvcodec import network, parallel
from make_golden import hashes

parallel.WORKERS = int(os.environ.get("WORKERS", parallel.WORKERS))
rng = np.random.default_rng(int(os.environ.get("SEED", 0)))

def float64(x, matrix, out=None):
    return (x.astype(np.float64) @ matrix.astype(np.float64)).astype(np.float32)

def shuffled(x, matrix, out=None):
    order = rng.permutation(x.shape[1])
    return np.ascontiguousarray(x[:, order]) @ matrix[order]

def by_torch(x, matrix, out=None):
    place = "cuda" if kind == "cuda" else "cpu"
    a, b = (torch.from_numpy(np.ascontiguousarray(part)).to(place) for part in (x, matrix))
    return (a @ b).cpu().numpy()

others = {"float64": float64, "shuffled": shuffled, "torch": by_torch, "cuda": by_torch}
network.dot = others.get(kind, network.dot)
found = {path: hashes(open(path, "rb").read()) for path in sys.argv[3:]}
packages = ["numpy", "constriction", "pillow"] + (["torch"] if "torch" in sys.modules else [])
print(json.dumps({
    "found": found,
    "python": sys.version.split()[0],
    **{name: importlib.metadata.version(name) for name in packages},
}))
"""


def decoded(python: str, kind: str, settings: dict[str, str], files: list[Path]) -> dict:
    """One row of the matrix; `found` has the hashes of every file."""
    command = [python, "-W", "ignore", "-c", DECODE, str(TESTS), kind, *map(str, files)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    found = json.loads(done.stdout) if not done.returncode else {"failed": done.stderr[-500:]}
    return {"products": kind, "settings": settings, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", type=Path, help="Folder of further .hvc files.")
    parser.add_argument("--python", nargs="*", default=[], help="Other interpreters with hvcodec.")
    arguments = parser.parse_args()
    golden = sorted((TESTS / "golden").glob("*.hvc"))
    index = json.loads((TESTS / "golden" / "golden.json").read_text())
    expected = {str(path): index[path.stem] for path in golden}
    files = golden + (sorted(arguments.files.glob("*.hvc")) if arguments.files else [])
    rows = []
    for python in (sys.executable, *arguments.python):
        for kind, settings in ROWS:
            row = decoded(python, kind, settings, files)
            if hashes := row.pop("found", None):
                expected = hashes | expected
                wrong = [Path(path).name for path in expected if hashes[path] != expected[path]]
                row |= {"files": len(hashes), "wrong": wrong}
            rows.append(row)
            print(row, flush=True)
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    ran = [row for row in rows if "left out" not in row]
    bad = [row for row in ran if row.get("wrong", True)]
    print(f"{len(ran)} rows, {len(bad)} with differences; {len(rows) - len(ran)} left out")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
