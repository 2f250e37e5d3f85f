"""Pixels <-> coefficients: the linear transform that the hierarchical VAE is lifted onto, in numpy.

RGB pixels become, through an orthonormal colour rotation and an 8x8 lapped transform, 192 coefficients
per 8x8 block; the three DC planes go on through three 2x2 Haar steps to strides 16, 32 and 64.

The lapped transform is the DCT-II after a learned rotation of the 8 pixels around every block border
(4 on each side), along rows and columns (Tran, Liang & Tu, "Lapped transform via time-domain pre- and
post-filtering", 2003). It is orthonormal whatever is learned: squared error in coefficients is squared
error in pixels, and nothing is lost at high rates.

The inverse is exact (`exact.py`): whole numbers of 2^-14 in its matrices and of 2^-8 between its parts,
in float64. Planes are H x W x C; pixels are RGB minus 128, so -128 .. 127.
"""

import math

import numpy as np

from .exact import Array
from .ladder import LAYERS, STRIDES, frequency_bands
from .parallel import in_parallel, strips

BLOCK = 8
DC_PLANES = 3
PLANES = DC_PLANES * BLOCK**2  # coefficients per block
OVERLAP = 4
INNER = slice(OVERLAP, -OVERLAP)  # what lies around inner borders of blocks
WEIGHT_UNIT = 2.0**-14
VALUE_UNIT = 2.0**-8
REDUCTIONS = {64: 1, 32: 1, 16: 2, 8: 3}  # strides of the means, and layers that these need

# Orthonormal rows: brightness, red-green, yellow-blue.
COLOUR = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / np.sqrt([[3], [2], [6]])


def dct_matrix(n: int = BLOCK) -> Array:
    """Orthonormal DCT-II, n x n float64; rows are frequencies."""
    k, x = np.arange(n)[:, None], np.arange(n)
    matrix = np.cos(math.pi * (2 * x + 1) * k / (2 * n)) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def block_basis() -> Array:
    """Basis of 8x8 blocks, 192 x 192 float64: rows are coefficients in the order of the ladder (three
    DC, then the bands of z4 .. z1), columns are plane x row x column of the block."""
    dct = dct_matrix()
    order = [(plane, 0, 0) for plane in range(3)] + [c for band in frequency_bands() for c in band]
    basis = np.zeros((len(order), 3, BLOCK, BLOCK))
    for i, (plane, down, across) in enumerate(order):
        basis[i, plane] = np.outer(dct[down], dct[across])
    return basis.reshape(len(order), -1)


def haar(means: Array) -> tuple[Array, Array]:
    """2x2 Haar step: H x W x C -> means H/2 x W/2 x C, details H/2 x W/2 x 3C (h, v, x)."""
    a, b, c, d = (means[i::2, j::2] for i in (0, 1) for j in (0, 1))
    details = np.concatenate([a - b + c - d, a + b - c - d, a - b - c + d], 2) / 2
    return (a + b + c + d) / 2, details


def unhaar(means: Array, details: Array) -> Array:
    """The inverse of `haar`."""
    h, v, x = np.split(details, 3, 2)
    wide = np.empty((2 * means.shape[0], 2 * means.shape[1], means.shape[2]), means.dtype)
    wide[0::2, 0::2], wide[0::2, 1::2] = (means + h + v + x) / 2, (means - h + v - x) / 2
    wide[1::2, 0::2], wide[1::2, 1::2] = (means + h - v - x) / 2, (means - h - v + x) / 2
    return wide


def turned_down(planes: Array, rotations: Array) -> Array:
    """Every 8 rows rotated.

    Args:
        planes: 3 x 8 n x W.
        rotations: 3 x 8 x 8, orthogonal; the transposed ones undo it.
    """
    groups = planes.reshape(len(planes), -1, BLOCK, planes.shape[2])
    return (rotations[:, None] @ groups).reshape(planes.shape)


def turned_across(planes: Array, rotations: Array) -> Array:
    """The same for every 8 columns."""
    groups = planes.reshape(*planes.shape[:2], -1, BLOCK)
    return (groups @ rotations.transpose(0, 2, 1)[:, None]).reshape(planes.shape)


def _whole(values: Array, unit: float) -> Array:
    """float64, rounded to multiples of a power of two."""
    return np.rint(values.astype(np.float64) / unit) * unit


class Transform:
    """Learned lapped transform between pixels and the coefficients of every layer."""

    def __init__(self, turns: Array) -> None:
        """Args:
            turns: int16, rotations of the three planes down, then of the three planes across, in units
                of 2^-14; 6 x 8 x 8.

        Raises:
            ValueError: of another shape.
        """
        if turns.shape != (6, BLOCK, BLOCK):
            raise ValueError("the turns are not those of this transform")
        self.turns = turns.astype(np.float64) * WEIGHT_UNIT
        # As float32 first, which is what training has.
        self.basis, self.colour = (
            _whole(matrix.astype(np.float32), WEIGHT_UNIT) for matrix in (block_basis(), COLOUR)
        )

    def blocks(self, pixels: Array) -> Array:
        """Pixels H x W x 3 (H, W multiples of 64) -> coefficients H/8 x W/8 x 192, DC first."""
        height, width = (n // BLOCK for n in pixels.shape[:2])
        colour, basis = self.colour.astype(np.float32), self.basis.T.astype(np.float32)
        down, across = np.split(self.turns.astype(np.float32), 2)
        result = np.empty((height, width, PLANES), np.float32)

        def work(top: int, bottom: int) -> None:
            first = max(top - 1, 0)  # borders are turned together with what is beyond them
            strip = pixels[first * BLOCK : (bottom + 1) * BLOCK]
            planes = (colour @ strip.reshape(-1, 3).T).reshape(3, *strip.shape[:2])
            planes[:, INNER] = turned_down(planes[:, INNER], down)
            planes = planes[:, (top - first) * BLOCK :][:, : (bottom - top) * BLOCK]
            planes[..., INNER] = turned_across(planes[..., INNER], across)
            blocks = planes.reshape(3, -1, BLOCK, width, BLOCK).transpose(1, 3, 0, 2, 4)
            result[top:bottom] = blocks.reshape(-1, width, PLANES) @ basis

        in_parallel(work, strips(height, width * PLANES))
        return result

    @staticmethod
    def split(planes: Array) -> list[Array]:
        """Coefficients as `blocks` gives them -> per layer, coarse first."""
        means, bands = planes[..., :DC_PLANES], planes[..., DC_PLANES:]
        fine = np.split(bands, np.cumsum([layer.channels for layer in LAYERS[3:]])[:-1], 2)
        coarse: list[Array] = []
        for _ in range(3):
            means, details = haar(means)
            coarse.insert(0, details)
        coarse[0] = np.concatenate([means, coarse[0]], 2)
        return coarse + fine

    @staticmethod
    def join(coefficients: list[Array]) -> Array:
        """The inverse of `split`."""
        coarse, details = coefficients[0], coefficients[1:3]
        means = unhaar(coarse[..., :DC_PLANES], coarse[..., DC_PLANES:])
        for part in details:
            means = unhaar(means, part)
        return np.concatenate([means, *coefficients[3:]], 2)

    def reduced(self, coefficients: list[Array], stride: int) -> Array:
        """Coefficients of the coarsest layers -> colours at a stride, float32, not clamped.

        Args:
            coefficients: per layer, coarse first, as many as the stride needs: `REDUCTIONS`.
            stride: picture pixels per position, one of `REDUCTIONS`; every colour is about the mean of
                so many pixels both ways.
        """
        coarse, *others = coefficients
        means, details = coarse[..., :DC_PLANES], [coarse[..., DC_PLANES:], *others]
        for part in details[: STRIDES.index(stride)]:
            means = unhaar(means, part)
        return means @ (self.colour / stride).astype(np.float32)

    def pixels(self, coefficients: Array) -> Array:
        """Coefficients as `join` gives them -> pixels H x W x 3 float32, not clamped."""
        height, width = (BLOCK * n for n in coefficients.shape[:2])
        # Whole numbers of `VALUE_UNIT`, in which all that follows is; and where 8 rows around a border
        # belong together.
        planes = np.empty((3, height, width))
        result = np.empty((height, width, 3), np.float32)
        down, across = self.turns[:3].transpose(0, 2, 1), self.turns[3:].transpose(0, 2, 1)
        colour = self.colour * VALUE_UNIT

        def blocks(top: int, bottom: int) -> None:
            numbers = coefficients[top:bottom] * np.float32(1 / VALUE_UNIT)
            found = np.rint(numbers, out=numbers).astype(np.float64) @ self.basis
            strip = planes[:, top * BLOCK : bottom * BLOCK]
            into = strip.reshape(3, -1, BLOCK, width // BLOCK, BLOCK)
            np.rint(found.reshape(*found.shape[:2], 3, BLOCK, BLOCK).transpose(2, 0, 3, 1, 4), out=into)
            np.rint(turned_across(strip[..., INNER], across), out=strip[..., INNER])

        def show(row: int, part: Array) -> None:
            size = part.shape[1], width, 3
            result[row : row + len(part[0])] = (part.reshape(3, -1).T @ colour).reshape(size)

        def pixels(top: int, bottom: int) -> None:
            # From the middle of a block to the middle of another, and to the picture's ends.
            first, last = top * BLOCK - OVERLAP if top else OVERLAP, bottom * BLOCK - OVERLAP
            show(first, np.rint(turned_down(planes[:, first:last], down)))
            if not top:
                show(0, planes[:, :OVERLAP])
            if last + OVERLAP == height:
                show(last, planes[:, last:])

        rows = strips(height // BLOCK, 2 * width * BLOCK * 3)
        in_parallel(blocks, rows)
        in_parallel(pixels, rows)
        return result
