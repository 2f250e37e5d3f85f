"""Are the streams what we say? Every cut of every file decodes, and bytes are the cross-entropy.

    python benchmarks/streams.py PICTURES OUT.json [--model FILE]

For every picture at several qualities: decodes the file cut after each layer, and compares the coded
bytes (all but header and checks) with the ideal code length of their symbols under the network's own
distributions (before tables are quantised to integers).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from metrics import psnr
from PIL import Image
from tqdm import tqdm

import hvcodec
from hvcodec import container, engine, modelfile, picture
from hvcodec.encoder import Encoder
from hvcodec.ladder import LAYERS
from hvcodec.mixture import Mixture
from hvcodec.network import Prior, delta
from hvcodec.steps import betas, lambda_of_quality, step_indices

QUALITIES = (20, 50, 80)


def ideal_bits(network: engine.Engine, latents: list[np.ndarray], steps: list[int]) -> float:
    """-log2 of the network's probability of the symbols that the encoder chose, skipped ones too."""
    layers = network.encode([latents], steps, betas(None)).layers
    start, end = network.network.tensors["tail"]
    total = 0.0

    def choose(index: int, p: int, prior: Prior) -> np.ndarray:
        nonlocal total
        symbols = engine.unflat(layers[index][p].symbols.astype(np.float32), prior.mean)
        log2_ratio, logit = ((1 - prior.shape) * start[i] + prior.shape * end[i] for i in (0, 1))
        scale = np.exp2(prior.log2_scale) / delta(steps[index])
        own = Mixture(scale, np.exp2(log2_ratio), 1 / (1 + np.exp(-logit)))
        total += float(own.bits(symbols).sum(dtype=np.float64))
        return symbols * delta(steps[index])

    height, width = (n * LAYERS[-1].stride for n in latents[-1].shape[:2])
    network.network.descend(steps, steps, height, width, choose)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    network = engine.load(modelfile.locate(arguments.model))
    rows = []
    for path in tqdm(sorted(arguments.pictures.glob("*.png"))):
        image = Image.open(path).convert("RGB")
        encoder = Encoder(network, picture.from_image(image), betas(None))
        for quality in QUALITIES:
            steps = step_indices(lambda_of_quality(quality), betas(None))
            (latents,) = network.analyse(encoder.source.rgb, steps)
            data = encoder.encode(lambda_of_quality(quality))
            points = hvcodec.info(data)["cut_points"]
            cuts = [
                psnr(np.asarray(image), np.asarray(hvcodec.decode(data[:n], model=arguments.model)))
                for n in points
            ]
            start = container.read(data).start
            coded = 8 * (len(data) - start) - 16 * len(LAYERS)
            ideal = ideal_bits(network, latents, steps)
            rows.append(
                {
                    "picture": path.name,
                    "quality": quality,
                    "bytes": points,
                    "bpp": [8 * n / (image.width * image.height) for n in points],
                    "psnr": cuts,
                    "coded_over_ideal": coded / ideal,
                }
            )
    ratios = [row["coded_over_ideal"] for row in rows]
    result = {
        "files": len(rows),
        "cuts_decoded": sum(len(row["psnr"]) for row in rows),
        "coded_over_ideal": {"mean": float(np.mean(ratios)), "max": max(ratios), "min": min(ratios)},
        "mean_cuts": {
            q: {
                key: np.mean([r[key] for r in rows if r["quality"] == q], axis=0).round(3).tolist()
                for key in ("bpp", "psnr")
            }
            for q in QUALITIES
        },
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=1))
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1))


if __name__ == "__main__":
    main()
