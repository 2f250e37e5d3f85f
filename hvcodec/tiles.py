"""Large pictures in bounded memory: tiles, whose pixels are made across their borders.

The latents of a tile depend on nothing outside it, so any tile can be decoded alone. The synthesis is
that of the whole picture: a pixel depends on what all tiles around it hold, so no border shows. Here it
is made window by window, each a tile moved up and left by the few positions that pixels depend on.
"""

from collections.abc import Callable
from operator import index

import numpy as np

from .container import Header
from .engine import Engine, Found
from .errors import UsageError
from .exact import Array
from .ladder import MAX_STRIDE, STRIDES
from .lossless_tables import UNIT
from .restoration import REACH, Restoration

Tile = tuple[slice, slice]  # rows and columns of pixels
Region = tuple[int, int, int, int]  # x, y, width, height in pixels

STRIDE = STRIDES[-1]  # of the positions that the synthesis starts from


def _slices(length: int, side: int) -> list[slice]:
    return [slice(a, min(a + side, length)) for a in range(0, length, side)]


def tiles(header: Header) -> list[Tile]:
    """All tiles of a picture, row by row."""
    side = header.tile or max(header.width, header.height)
    return [(r, c) for r in _slices(header.height, side) for c in _slices(header.width, side)]


def touched(header: Header, region: Region | None) -> tuple[list[int], Region]:
    """Numbers of the tiles that a region touches, and the region that they cover.

    Raises:
        UsageError: the region is empty or not inside the picture.
    """
    x, y, width, height = _checked(region, header)
    found = [
        (number, (rows, columns))
        for number, (rows, columns) in enumerate(tiles(header))
        if rows.start < y + height and y < rows.stop and columns.start < x + width and x < columns.stop
    ]
    (top, left), (bottom, right) = found[0][1], found[-1][1]
    covered = left.start, top.start, right.stop - left.start, bottom.stop - top.start
    return [number for number, _ in found], covered


def shape(tile: Tile) -> tuple[int, int]:
    """Height and width of a tile."""
    rows, columns = tile
    return rows.stop - rows.start, columns.stop - columns.start


def _span(first: int, length: int, whole: int, side: int, halo: int) -> list[int]:
    """Numbers of the tiles along one side that pixels first .. first + length - 1 depend on."""
    low, high = max(first - halo * STRIDE, 0), min(first + length + halo * STRIDE, whole)
    return list(range(low // side, -(-high // side)))


def _checked(region: Region | None, header: Header) -> Region:
    if region is None:
        return 0, 0, header.width, header.height
    try:
        x, y, width, height = map(index, region)
        if 0 <= x < x + width <= header.width and 0 <= y < y + height <= header.height:
            return x, y, width, height
    except (TypeError, ValueError):
        pass
    raise UsageError(
        f"a region is x, y, width, height in pixels, inside the {header.width}x{header.height} picture"
    )


def picture(
    header: Header,
    network: Engine,
    find: Callable[[int], Found],
    region: Region | None = None,
    unit: int = 1,
    finish: Restoration | None = None,
) -> Array:
    """The picture, or a region of it, H x W x 3: uint8, or int16 in parts of a grey level.

    Args:
        find: gives what the ladder ends with in a tile, by the tile's number; called once for each tile
            that is needed, in ascending order.
        region: x, y, width and height in pixels.
        unit: parts of a grey level; see `Network.synthesise`.
        finish: filter of the picture; then it is uint8.

    Raises:
        UsageError: the region is empty or not inside the picture.
    """
    x, y, width, height = _checked(region, header)
    tall, wide = (-(-n // MAX_STRIDE) * MAX_STRIDE // STRIDE for n in (header.height, header.width))
    side = (header.tile or MAX_STRIDE * max(tall, wide)) // STRIDE
    halo = network.network.halo + (-(-REACH // STRIDE) if finish else 0)
    rows = _span(y, height, header.height, side * STRIDE, halo)
    columns = _span(x, width, header.width, side * STRIDE, halo)
    across = -(-wide // side)
    pixels = np.empty((height, width, 3), np.uint8 if unit == 1 or finish else np.int16)

    def paint(window: Array, top: int, left: int, known: list[int]) -> None:
        """The pixels that a window decides; it starts at this row and column of positions."""
        outer, inner, target, within = [], [], [], []
        for begin, size, limit, first, count, end in (
            (top, window.shape[0], tall, y, height, header.height),
            (left, window.shape[1], wide, x, width, header.width),
        ):
            # Its margins are decided by other windows, unless they are the picture's ends.
            low = max((begin + halo if begin else 0) * STRIDE, first)
            high = begin + size
            high = min((high if high == limit else high - halo) * STRIDE, first + count)
            if low >= high:
                return
            start = max(low // STRIDE - halo, begin)
            stop = min(-(-high // STRIDE) + halo, begin + size)
            outer.append(slice(start - begin, stop - begin))
            inner.append(slice(low - start * STRIDE, high - start * STRIDE))
            target.append(slice(low - first, high - first))
            within.append(slice(0, end - start * STRIDE))  # the rest is padding
        made = network.synthesise(window[tuple(outer)], known, UNIT if finish else unit)
        if finish:
            made = finish.apply(made[tuple(within)])
        pixels[tuple(target)] = made[tuple(inner)]

    above: list[Array] = []  # last positions of the row of tiles above, tile by tile
    for row in rows:
        below: list[Array] = []
        band = np.concatenate(above, 1) if above else None
        left, at = None, columns[0] * side
        for column in columns:
            found = find(row * across + column)
            body = found.features if left is None else np.concatenate([left, found.features], 1)
            left_edge = at - (body.shape[1] - found.features.shape[1])
            window, top = body, row * side
            if band is not None:
                start = left_edge - columns[0] * side
                window = np.concatenate([band[:, start : start + body.shape[1]], body])
                top -= len(band)
            paint(window, top, left_edge, found.known)
            below.append(found.features[-2 * halo :].copy())
            left = body[:, -2 * halo :].copy()
            at += found.features.shape[1]
        above = below
    return pixels
