"""The ladder: which latent layers there are, in what order, and what each one holds.

The only place where the order of the layers stands. The linear transform (`transform.py`) turns a
picture into coefficient planes at strides 8, 16, 32 and 64; the ladder groups them into the
stochastic layers z7 ... z1 of the hierarchical VAE, coarse to fine. Refinement layers
(`refinement.py`), two a level, may follow; the last one is called r1, the one before it r2, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

STRIDES = (64, 32, 16, 8)
MAX_STRIDE = STRIDES[0]


@dataclass(frozen=True)
class Layer:
    """One stochastic layer.

    Attributes:
        name: the name in the CLI, the API and the documentation, `z7` (coarsest) to `z1`.
        stride: picture pixels per latent position, both ways.
        channels: latent channels per position.
        passes: 2 if the layer is coded over two complementary checkerboards, the second a further
            layer of the hierarchy that sees its neighbours of the first; 1 if in one go.
        holds: what its coefficients are, in words.
    """

    name: str
    stride: int
    channels: int
    passes: int
    holds: str


LAYERS = (
    Layer("z7", 64, 12, 1, "mean colour and its coarsest details"),
    Layer("z6", 32, 9, 2, "details of the mean colour, 32 pixels"),
    Layer("z5", 16, 9, 2, "details of the mean colour, 16 pixels"),
    Layer("z4", 8, 9, 2, "lowest frequencies of 8x8 blocks"),
    Layer("z3", 8, 15, 2, "low frequencies"),
    Layer("z2", 8, 39, 2, "middle frequencies"),
    Layer("z1", 8, 126, 2, "high frequencies"),
)
NAMES = tuple(layer.name for layer in LAYERS)

RATIO = 2  # each level of refinement divides all steps by it
LAYERS_PER_LEVEL = 2
MAX_LEVELS = 4
COARSE_HALF = 4  # layers of the ladder that the first layer of a level refines
REFINES = ("z7 to z4 at half the step", "z3 to z1 at half the step")


def of_layers(counts: Sequence[int]) -> tuple[int, ...]:
    """Counts for each layer, coarse first, from these or, in older models, those of each stride."""
    if len(counts) != len(STRIDES):
        return tuple(counts)
    return tuple(counts[STRIDES.index(la.stride)] for la in LAYERS)


def names(levels: int) -> list[str]:
    """Names of all layers of a file with some levels of refinement, coarse first."""
    return [*NAMES, *(f"r{n}" for n in range(levels * LAYERS_PER_LEVEL, 0, -1))]


def frequency_bands() -> list[list[tuple[int, int, int]]]:
    """The AC coefficients of the four stride-8 layers z4 ... z1.

    Bands are sets of anti-diagonals of the 8x8 DCT; chroma comes later than luma because its
    coefficients are smaller at the same frequency.

    Returns:
        For each layer, coarse first, a list of (colour plane 0..2, vertical frequency 0..7,
        horizontal frequency 0..7), lowest anti-diagonal first.
    """
    luma = ((1, 2), (3, 4), (5, 7), (8, 14))
    chroma = ((1, 1), (2, 2), (3, 4), (5, 14))
    bands = []
    for luma_range, chroma_range in zip(luma, chroma):
        band = [
            (plane, v, h)
            for plane in range(3)
            for v in range(8)
            for h in range(8)
            if (luma_range if plane == 0 else chroma_range)[0]
            <= v + h
            <= (luma_range if plane == 0 else chroma_range)[1]
        ]
        bands.append(sorted(band, key=lambda c: (c[1] + c[2], c[0], c[1])))
    return bands


def colour_planes(index: int) -> list[int]:
    """Colour plane 0..2 of every channel of a layer; 0 is luma."""
    coarse = sum(layer.stride > STRIDES[-1] for layer in LAYERS)
    if index < coarse:  # Haar means and details, three planes each
        return [channel % 3 for channel in range(LAYERS[index].channels)]
    return [plane for plane, _, _ in frequency_bands()[index - coarse]]


class Place(NamedTuple):
    """What is coded in one go: some channels of a layer at the positions of one of its passes.

    Attributes:
        layer: of the ladder, 0 .. 6.
        p: the pass.
        channels: of the layer, rising.
    """

    layer: int
    p: int
    channels: tuple[int, ...]


@cache
def luma(at: Place) -> tuple[bool, ...]:
    """Whether each channel of a place is of luma."""
    planes = colour_planes(at.layer)
    return tuple(planes[channel] == 0 for channel in at.channels)


GROUPED = range(2, 5)  # z5, z4 and z3, where channels at one position tell most of each other


@cache
def places(index: int, p: int, grouped: bool) -> list[Place]:
    """What a pass of a layer consists of, in the order in which it is coded.

    Args:
        grouped: in z5, z4 and z3 luma comes first, its lower frequencies before its higher ones, and
            the other colours follow; else all channels come at once.
    """
    channels = range(LAYERS[index].channels)
    planes = colour_planes(index)
    luma, others = ([c for c in channels if (planes[c] == 0) == own] for own in (True, False))
    groups = [[*channels]]
    if grouped and index in GROUPED:
        groups = [luma, others]
        if LAYERS[index].stride == STRIDES[-1]:
            bands = frequency_bands()[index - sum(la.stride > STRIDES[-1] for la in LAYERS)]
            diagonal = [v + h for _, v, h in bands]
            lowest = min(diagonal[c] for c in luma)
            low, high = ([c for c in luma if (diagonal[c] == lowest) == own] for own in (True, False))
            groups = [low, high, others]
    return [Place(index, p, tuple(group)) for group in groups]
