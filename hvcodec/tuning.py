"""What squared errors are worth, place by place: weights that the encoder alone knows.

For PSNR they are worth the same everywhere but beside other tiles (`BORDERS`). MS-SSIM (Wang,
Simoncelli & Bovik 2003) divides errors by the local variance, so there an error counts less where the
picture is busy: its importance is

    (v + C)^-ALPHA, divided by its geometric mean,

v the local variance of the picture's brightness. The stream does not change: steps stay as they are,
and the encoder decides otherwise which symbols are worth their bits.
"""

import numpy as np

from .exact import Array
from .ladder import LAYERS
from .steps import BITS_PER_SQUARED_ERROR

TUNINGS = ("psnr", "ms-ssim")
ALPHA = 0.5
FLOOR = 58.5  # C: (0.03 * 255)^2, the constant of SSIM's contrast term
REACH = 3  # in positions at stride 8, to every side
LIMIT = 4.0  # of the importance, both ways
# How much more errors beside another tile count: both sides were coded apart, so borders would show.
BORDERS = np.float32(2)
# What an error costs beyond its own square, by the ladder's layers: the finer ones are predicted from
# what z4 and z3 turn out to be (docs/training-log.md).
LATER = (1, 1, 1, 1.5, 1.5, 1, 1)


def _pooled(planes: Array, size: int) -> Array:
    """Means over squares: H x W -> H/size x W/size."""
    h, w = planes.shape
    return planes.reshape(h // size, size, w // size, size).mean((1, 3))


def log_importance(pixels: Array, tune: str) -> Array:
    """Logarithm of the importance of squared errors, up to a constant.

    Args:
        pixels: H x W x 3; the result is H/8 x W/8.
        tune: one of `TUNINGS`.
    """
    if tune == "psnr":
        return np.zeros((pixels.shape[0] // 8, pixels.shape[1] // 8), np.float32)
    brightness = pixels.mean(2)

    def local(planes: Array) -> Array:
        size = 2 * REACH + 1
        padded = np.pad(_pooled(planes, 8), REACH, mode="edge")
        return np.lib.stride_tricks.sliding_window_view(padded, (size, size)).mean((2, 3))

    variance = local(np.square(brightness)) - np.square(local(brightness))
    return -ALPHA * np.log(np.maximum(variance, 0) + FLOOR)


def importance(logs: Array, mean: float) -> Array:
    """Importance, 1/4 .. 4, from its logarithm and the mean of that over the whole picture."""
    return np.clip(np.exp(logs - mean), 1 / LIMIT, LIMIT).astype(np.float32)


def stress_borders(importance: Array, tile: tuple[slice, slice], size: tuple[int, int]) -> None:
    """Let errors at a tile's borders within the picture, of this size, be worth more."""
    for lines, part, end in zip((importance, importance.T), tile, size):
        if part.start > 0:
            lines[0] *= BORDERS
        if part.stop < end:
            lines[-1] *= BORDERS


def at_stride(importance: Array, stride: int) -> Array:
    """Mean importance at the positions of a stride of at least 8."""
    return _pooled(importance, stride // 8)


def at_pixels(importance: Array, height: int, width: int) -> Array:
    """Importance of every pixel of a picture, H x W."""
    return importance.repeat(8, 0)[:height].repeat(8, 1)[:, :width]


def worth(importance: Array, thrift: float = 1.0, levels: int = 0) -> list[Array]:
    """Bits that a squared error of one step is worth, for each of the ladder's layers (`quantise.py`),
    and what it does to later ones with it.

    Args:
        thrift: above 1, bits are worth more than lambda says.
        levels: of refinement that the file has; they mend errors before anything else is predicted
            from them, so none is worth more than its square there.
    """
    return [
        at_stride(importance, la.stride)
        * np.float32(BITS_PER_SQUARED_ERROR / thrift * (1 if levels else later))
        for la, later in zip(LAYERS, LATER)
    ]
