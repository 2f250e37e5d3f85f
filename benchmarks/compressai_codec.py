"""hvcodec as a codec of CompressAI's own benchmark, `compressai.utils.bench`.

    python benchmarks/compressai_codec.py hvcodec PICTURES -q 20,50,80

takes the arguments of `python -m compressai.utils.bench` and prints its JSON. Needs the extra
`hvcodec[compressai]`, in an environment of its own: CompressAI wants numpy below 2.
"""

import argparse
import sys
import time
from typing import Any

from compressai.utils.bench import __main__ as bench
from compressai.utils.bench.codecs import Codec
from PIL import Image

import hvcodec


class HVCodec(Codec):
    """hvcodec at its default effort; quality 0..100. The benchmark calls it by its lower-case name."""

    _description = "hvcodec, shipped photo model, one network for all rates"

    @classmethod
    def setup_args(cls, _parser: argparse.ArgumentParser) -> None:
        pass

    @property
    def name(self) -> str:
        return "hvcodec"

    def _run_impl(
        self, img: str, quality: int, *args: Any, **kwargs: Any
    ) -> tuple[dict[str, float], Image.Image]:
        picture = self._load_img(img)
        start = time.perf_counter()
        data = hvcodec.encode(picture, quality)
        middle = time.perf_counter()
        decoded = hvcodec.decode(data)
        end = time.perf_counter()
        return {
            "bpp": 8 * len(data) / (picture.width * picture.height),
            "encoding_time": middle - start,
            "decoding_time": end - middle,
        }, decoded


def main() -> None:
    bench.codecs.append(HVCodec)
    bench.main(sys.argv[1:])


if __name__ == "__main__":
    main()
