"""A second decoder, of numpy and constriction alone, written from docs/format.md.

It shares no code with the package: that it finds the same pixels shows that the page says everything,
and that a file outlives the program that made it. Slow and plain; skips metadata.
"""

import json
import math
import struct

import constriction
import numpy as np

F = np.float32
SIZES = {"z7": (64, 12, 1), "z6": (32, 9, 2), "z5": (16, 9, 2)}
SIZES |= {"z4": (8, 9, 2), "z3": (8, 15, 2), "z2": (8, 39, 2), "z1": (8, 126, 2)}
NAMES = list(SIZES)
OFF = 255
W = F(6 * 1.3**2 / math.log(2))
PRIORS = [
    [2, 3, 5, 47, 174, 18, 5, 1, 1],
    [5, 8, 29, 87, 95, 24, 5, 2, 1],
    [7, 12, 25, 43, 66, 59, 31, 10, 3],
]
EIGHTHS = np.array([0, 4, 1, 6, 2, 5, 3, 7])
CHANNEL_PRIORS = [[1, 1, 7, 52, 152, 37, 4, 1, 1], [26, 17, 38, 58, 64, 28, 14, 7, 4]]


def bands():
    """Colour planes of the channels of z4 .. z1."""
    ends = (((1, 2), (1, 1)), ((3, 4), (2, 2)), ((5, 7), (3, 4)), ((8, 14), (5, 14)))
    for pair in ends:
        found = []
        for diagonal in range(15):
            for plane in range(3):
                first, last = pair[plane > 0]
                count = sum(0 <= diagonal - v < 8 for v in range(8))
                found += [plane] * count * (first <= diagonal <= last)
        yield found


def groups(k, grouped):
    """Channels of z7 .. z1 that a pass codes one after another."""
    every = list(range(len(COLOURS[k])))
    if not (grouped and 2 <= k <= 4):
        return [every]
    luma = [c for c in every if COLOURS[k][c] == 0]
    others = [c for c in every if COLOURS[k][c]]
    if k == 2:
        return [luma, others]
    # Of luma, z4 has diagonals 1 and 2, z3 those of 3 and 4; they stand in this order.
    low = 2 * (k - 2)
    return [luma[:low], luma[low:], others]


# Of the channels of each layer.
COLOURS = [[0, 1, 2] * 4, [0, 1, 2] * 3, [0, 1, 2] * 3, *bands()]
PLACES = (0, 0), (1, 1), (0, 1), (1, 0)


def log2(x):
    m, e = np.frexp(x)
    rest = (m * F(1.40815007) - F(4.45325453)) * m + F(5.52538099)
    rest = rest * m - F(3.59235683)
    return e.astype(F) + (m - 1) * (2 + (m - F(0.5)) * rest)


def exp2(x):
    x = np.clip(x, -120, 120).astype(F)
    whole = np.rint(x)
    f = x - whole
    p = (f * F(0.00132609) + F(0.00967018)) * f + F(0.05550712)
    p = ((p * f + F(0.24022224)) * f + F(0.693147)) * f + 1
    return p * ((whole.astype(np.int32) + 127) << 23).view(F)


def log(x):
    return log2(x) * F(math.log(2))


def exp(x):
    return exp2(x * F(1 / math.log(2)))


def sigmoid(x):
    return 1 / (1 + exp2(x * F(-1 / math.log(2))))


def shuffle(x, r):
    c, h, w = x.shape
    return x.reshape(c // r**2, r, r, h, w).transpose(0, 3, 1, 4, 2).reshape(c // r**2, h * r, w * r)


def unshuffle(x, r):
    c, h, w = x.shape
    return x.reshape(c, h // r, r, w // r, r).transpose(0, 2, 4, 1, 3).reshape(c * r**2, h // r, w // r)


def take(x, p, passes):
    if passes == 1:
        return x
    rows = [x[:, r, (p + r) % 2 :: 2] for r in range(x.shape[1])]
    return np.stack(rows, 1)


def put(part, p, passes, into):
    if passes == 1:
        into[...] = part
    for r in range(into.shape[1] * (passes - 1)):
        into[:, r, (p + r) % 2 :: 2] = part[:, r]


def mixture(tail):
    """Ratios and weights of the wide logistic, for the eight shapes."""
    shapes = np.arange(8, dtype=F) / F(7)
    ratio, logit = ((1 - shapes) * tail[0, i] + shapes * tail[1, i] for i in (0, 1))
    return exp2(ratio), sigmoid(logit)


class Tables:
    """Probabilities: `mixture` and `exact` are the tails' ratios and weights, of the ladder and of the
    lossless layer."""

    def set_tables(self, counts, reaches):
        self.counts = np.split(counts, np.cumsum(2 * reaches + 2)[:-1])
        zero = np.array([c[r] for c, r in zip(self.counts, reaches)])
        limit = np.where(np.arange(len(reaches)) < 712, 1 - 2.0**-10, 1 - 2.0**-16)
        self.silent = zero > limit * 2**24
        self.models = {}

    def model(self, table, exact):
        """Of the coder, and the reach; of the ladder's tables or of the lossless layer's."""
        if (table, exact) not in self.models:
            counts = self.lossless_table(table) if exact else self.counts[table]
            model = constriction.stream.model.Categorical((counts - 1).astype(float), perfect=False)
            self.models[table, exact] = model, len(counts) // 2 - 1
        return self.models[table, exact]

    def lossless_table(self, table):
        """Counts of one table of the lossless layer."""
        (level, fraction), shape = divmod(table // 8, 9), table % 8
        ratio, weight = (part[shape] for part in self.exact)
        scale = exp2(F(level) / F(8) - F(5))
        reach = int(np.clip(np.ceil(scale * ratio * F(12.476649)), 1, 510))

        def below(edge):
            at = edge / scale
            return (1 - weight) * sigmoid(at) + weight * sigmoid(at / ratio)

        edges = np.arange(-reach, reach + 2).astype(F) - F(0.5) - F(fraction / 16)
        low, high = edges[:-1], edges[1:]
        inner = 1 - below(low).astype(float) - below(-high)
        outer = below(np.where(high <= 0, high, -low)) - below(np.where(high <= 0, low, -high))
        masses = np.where((high <= 0) | (low >= 0), outer, inner)
        masses = np.append(masses, float(below(edges[0])) + float(below(-edges[-1])))
        counts = np.maximum(np.rint(masses * 2**24), 1).astype(int)
        counts[reach] += 2**24 - counts.sum()
        return counts


class Network(Tables):
    """Weights, rounded as the page says, and what is made of them."""

    def __init__(self, data):
        (size,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + size])
        kinds = {"F16": np.float16, "I16": np.int16, "I32": np.int32, "F32": F}
        self.t = {}
        for name, entry in head.items():
            if name != "__metadata__":
                a, b = entry["data_offsets"]
                content = np.frombuffer(data[8 + size + a : 8 + size + b], kinds[entry["dtype"]])
                content = content.reshape(entry["shape"])
                self.t[name] = content.astype(F) if entry["dtype"] == "F16" else content
        self.config = json.loads(head["__metadata__"]["hvcodec"])["config"]
        self.grouped = self.config.get("groups", 1) > 1
        self.grids = {}
        grids = [*zip(self.products(), self.t["exact.grids"].tolist())]
        if "exact.lossless" in self.t:
            grids += zip(self.lossless_products(), self.t["exact.lossless"].tolist())
        for name, (exponent, limit) in grids:
            self.grids[name] = 2.0**exponent, limit
            if name + ".depthwise" in self.t:
                self.round(name + ".depthwise", None, limit, 2.0**exponent)
            else:
                self.round(name + ".weight", name + ".bias", limit, 2.0**exponent)
        for name in self.t:
            if name.endswith(("condition.weight", "synthesis_gain.weight")):
                self.round(name, None, 32, 1 / 32)
        self.mixture = mixture(self.t["tail"])
        if "lossless.tail" in self.t:
            self.exact = mixture(self.t["lossless.tail"])
        self.set_tables(self.t["tables.counts"], self.t["tables.reaches"].astype(int))

    def products(self):
        """Names in the order of their rows in `exact.grids`."""

        def block(name):
            return [name, name + ".expand", name + ".project"]

        c = self.config
        names = []
        for k, name in enumerate(NAMES):
            for p in range(SIZES[name][2]):
                rung = f"rungs.{k}.{p}"
                names += [b for n in range(self.blocks(k)) for b in block(f"{rung}.blocks.{n}")]
                names += [rung + ".head", rung + ".absorb"]
                for n in range(len(groups(k, self.grouped)) - 1):
                    parts = "from_trunk", "from_values", "out"
                    names += [f"{rung}.followers.{n}.{part}" for part in parts]
        names += [f"up.{k}" for k in range(3)]
        names += [b for n in range(c["closing_blocks"]) for b in block(f"closing_blocks.{n}")]
        names.append("closing_head")
        if c["middle_blocks"]:
            middle = [b for n in range(c["middle_blocks"]) for b in block(f"middle_blocks.{n}")]
            names += ["middle_in", *middle, "middle_out"]
        names += ["synthesis_in", "synthesis_picture"]
        names += [b for n in range(c["synthesis_blocks"]) for b in block(f"synthesis_blocks.{n}")]
        return [*names, "synthesis_out"]

    def blocks(self, k):
        """How many there are before each pass of a layer."""
        counts = self.config["blocks"]
        return counts[k] if len(counts) == 7 else counts[int(math.log2(64 // SIZES[NAMES[k]][0]))]

    def passes(self):
        """Names of the blocks of every pass of the lossless layer."""
        found = []
        for p in range(4):
            own = f"lossless.passes.{p}.blocks"
            count = sum(n.startswith(own) and n.endswith(".depthwise") for n in self.t)
            found.append([f"{own}.{n}" for n in range(count)])
        return found

    def lossless_products(self):
        names = ["lossless.into"]
        for p, blocks in enumerate(self.passes()):
            names += [n for b in blocks for n in (b, b + ".expand", b + ".project")]
            names += [f"lossless.passes.{p}.head", f"lossless.passes.{p}.absorb"][: 2 - (p == 3)]
        return names

    def round(self, name, bias, limit, unit):
        w = self.t[name].reshape(len(self.t[name]), -1).astype(float)
        b = self.t[bias].astype(float) if bias else np.zeros(len(w))
        best = np.full(len(w), np.inf)
        for k in range(-12, 25):
            step = 2.0**-k
            sums = np.abs(np.rint(w / step)).sum(1) * limit + np.abs(np.rint(b / step / unit))
            best = np.where(sums < 2**24, step, best)
        assert np.isfinite(best).all()
        w = np.rint(w / best[:, None]) * best[:, None]
        self.t[name] = w.astype(F).reshape(self.t[name].shape)
        if bias:
            self.t[bias] = (np.rint(b / best / unit) * best * unit).astype(F)

    def snap(self, name, x):
        unit, limit = self.grids[name]
        return (np.rint(np.clip(x / F(unit), -limit, limit)) * F(unit)).astype(F)

    def product(self, name, x, shift=F(0)):
        x = self.snap(name, x)
        y = self.t[name + ".weight"] @ x.reshape(len(x), -1)
        return (y + (self.t[name + ".bias"] + shift)[:, None]).reshape(-1, *x.shape[1:])

    def condition(self, steps):
        features = []
        for step in steps:
            at = min(max(step / 16 - 1, 0.0), 12.0)
            hats = [max(1 - abs(at - 2 * k) / 2, 0) * (step != OFF) for k in range(7)]
            features += [*hats, float(step == OFF)]
        return np.array(features, F)

    def block(self, name, h, condition):
        padded = np.pad(self.snap(name, h), ((0, 0), (1, 1), (1, 1)))
        kernel = self.t[name + ".depthwise"]
        rows, columns = h.shape[1:]
        u = np.zeros_like(h)
        for i in range(3):
            for j in range(3):
                u += kernel[:, 0, i, j, None, None] * padded[:, i : i + rows, j : j + columns]
        u = self.product(name + ".expand", u, self.t[name + ".condition.weight"] @ condition)
        return self.product(name + ".project", np.maximum(u, 0)) + h

    def prior(self, k, p, n, steps, size, h, last):
        """What the n-th group of a pass of a layer, of this size, is coded with: trunk, means, levels,
        shapes.

        h is the trunk before, and last what the pass before turned out to be, or the groups before of
        the same pass one after another: values and residuals.
        """
        condition = self.condition([max(s, 96) if k < 4 else s for s in steps])
        rung, passes = f"rungs.{k}.{p}", SIZES[NAMES[k]][2]
        if not n:
            h = self.trunk(k, p, steps, size, h, last, condition)
        every = groups(k, self.grouped)
        found = self.product(rung + ".head", take(h, p, passes))
        found = found.reshape(3, -1, *found.shape[1:])[:, every[n]]
        if n:
            follower = f"{rung}.followers.{n - 1}"
            told = self.told(k, [c for group in every[:n] for c in group], steps, last)
            hidden = self.product(follower + ".from_trunk", take(h, p, passes))
            hidden = hidden + self.product(follower + ".from_values", told)
            hidden = hidden + (self.t[follower + ".condition.weight"] @ condition)[:, None, None]
            more = self.product(follower + ".out", np.maximum(hidden, 0))
            found = found + more.reshape(found.shape)
        mean, scale, shape = found
        spread = self.t[f"spread_{NAMES[k]}"][every[n]][:, None, None]
        mean = np.clip(mean * F(0.25), -8, 8) * spread
        scale = np.clip(scale, -8, 8) + log2(spread) - 1 - log2(exp2(F(steps[k] / 16 - 1)))
        shape = np.rint(np.clip(shape + F(0.5), 0, 1) * 7)
        return h, mean, np.clip(np.rint((scale + 8) * 8), 0, 184), shape

    def trunk(self, k, p, steps, size, h, last, condition):
        """The trunk before a pass."""
        octave = int(math.log2(64 // SIZES[NAMES[k]][0]))
        if last is None:
            h = np.tile(self.t["start"][:, None, None], (1, *size))
        else:
            h = self.absorbed(
                *((k, p - 1) if p else (k - 1, SIZES[NAMES[k - 1]][2] - 1)), steps, h, last
            )
        if h.shape[1] < size[0]:
            h = shuffle(self.product(f"up.{octave - 1}", h), 2)
        for n in range(self.blocks(k)):
            h = self.block(f"rungs.{k}.{p}.blocks.{n}", h, condition)
        return h

    def absorbed(self, k, p, steps, h, last):
        """The trunk after a pass."""
        told = self.told(k, list(range(len(COLOURS[k]))), steps, last)
        back = self.product(f"rungs.{k}.{p}.absorb", told)
        wide = np.zeros_like(h)
        put(back, p, SIZES[NAMES[k]][2], wide)
        return h + wide

    def told(self, k, channels, steps, last):
        """What values and residuals of some channels of a layer tell."""
        (value, residual), spread = last, self.t[f"spread_{NAMES[k]}"][channels][:, None, None]
        symbol = residual / exp2(F(steps[k] / 16 - 1))
        features = [
            np.clip(value / spread, -8, 8),
            np.sign(value) * log2(1 + np.abs(value) / 2) / 4,
            np.sign(symbol) * log2(1 + np.abs(symbol)) / 2,
        ]
        return np.concatenate(features).astype(F)

    def found(self, steps, h, last, values):
        """Coefficients and trunk after the last pass, from the values of all; C x H x W."""
        layers = []
        for k, name in enumerate(NAMES):
            _, channels, passes = SIZES[name]
            first = values[k, 0]
            layers.append(np.zeros((channels, first.shape[1], passes * first.shape[2]), F))
            for p in range(passes):
                put(values[k, p], p, passes, layers[k])
        means = layers[0][:3]
        for details in (layers[0][3:], *layers[1:3]):
            a, v, x = np.split(details, 3)
            wide = np.empty((3, 2 * a.shape[1], 2 * a.shape[2]), F)
            wide[:, 0::2, 0::2], wide[:, 0::2, 1::2] = (
                (means + a + v + x) / 2,
                (means - a + v - x) / 2,
            )
            wide[:, 1::2, 0::2], wide[:, 1::2, 1::2] = (
                (means + a - v - x) / 2,
                (means - a - v + x) / 2,
            )
            means = wide
        return np.concatenate([means, *layers[3:], self.absorbed(6, 1, steps, h, last)])

    def inverse(self, planes):
        planes = planes.astype(float)

        def snap(x):
            return np.rint(x * 256) / 256

        def units(x):
            return np.rint(np.asarray(x, F).astype(float) * 2**14) / 2**14

        n = np.arange(8)
        dct = np.cos(np.pi * (2 * n + 1) * n[:, None] / 16) * 0.5
        dct[0] /= np.sqrt(2)
        luma, chroma = ((1, 2), (3, 4), (5, 7), (8, 14)), ((1, 1), (2, 2), (3, 4), (5, 14))
        order = [(c, 0, 0) for c in range(3)]
        for bands in zip(luma, chroma):
            band = [
                (c, v, w)
                for c in range(3)
                for v in range(8)
                for w in range(8)
                if bands[c > 0][0] <= v + w <= bands[c > 0][1]
            ]
            order += sorted(band, key=lambda c: (c[1] + c[2], *c))
        basis = np.zeros((192, 3, 8, 8), F)
        for i, (c, v, w) in enumerate(order):
            basis[i, c] = np.outer(dct[v].astype(F), dct[w].astype(F))
        basis = units(basis.reshape(192, 192))
        planes = snap(planes)
        blocks = np.tensordot(basis, planes, ((0,), (0,)))
        planes = snap(shuffle(blocks, 8))
        turns = self.t["exact.turns"].astype(float) / 2**14
        for part, axis in ((turns[3:], 2), (turns[:3], 1)):
            lines = np.moveaxis(planes, axis, 2)
            inner = lines[..., 4:-4].reshape(*lines.shape[:2], -1, 8)
            inner = np.einsum("crni,cik->crnk", inner, part)
            lines = np.concatenate(
                [lines[..., :4], inner.reshape(*lines.shape[:2], -1), lines[..., -4:]], 2
            )
            planes = snap(np.moveaxis(lines, 2, axis))
        colour = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], F)
        colour = units(colour / np.sqrt((colour**2).sum(1, keepdims=True)).astype(F))
        return np.tensordot(colour, planes, ((0,), (0,))).astype(F)

    def picture(self, found, steps):
        """Pixels, and sixteenths of them; 3 x H x W."""
        planes, h = found[:192].copy(), found[192:]
        condition = self.condition(steps)
        for n in range(self.config["closing_blocks"]):
            h = self.block(f"closing_blocks.{n}", h, condition)
        open_to = [
            np.minimum(exp2(F(steps[k] / 16 - 1)), self.t[f"spread_{NAMES[k]}"]) for k in range(3, 7)
        ]
        planes[3:] += self.product("closing_head", h) * np.concatenate(open_to)[:, None, None]
        linear = self.inverse(planes)
        u = shuffle(self.product("synthesis_in", h), 4)
        if self.config["middle_blocks"]:
            middle = shuffle(self.product("middle_in", h), 2)
            for n in range(self.config["middle_blocks"]):
                middle = self.block(f"middle_blocks.{n}", middle, condition)
            u = u + shuffle(self.product("middle_out", middle), 2)
        u = u + self.product("synthesis_picture", unshuffle(linear / 64, 2))
        for n in range(self.config["synthesis_blocks"]):
            u = self.block(f"synthesis_blocks.{n}", u, condition)
        gain = (self.t["synthesis_gain.weight"] @ condition)[:, None, None] * 8
        picture = linear + shuffle(self.product("synthesis_out", u) * gain, 2) + 128
        pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        return pixels, np.clip(np.rint(picture * 16), 0, 4080).astype(int)

    def lossless_pass(self, p, steps, shown, h, d):
        """What a pass of the lossless layer is coded with: trunk, means, scales, shapes, shares
        of errors and of surprises.

        h is the trunk of the pass before, and d what that turned out to be.
        """
        wide = np.pad(shown, ((0, 0), *((0, n % 2) for n in shown.shape[1:])), "edge")
        level = (wide + 8) // 16
        fraction = (wide / 16 - level).astype(F)
        if h is None:
            seen = [unshuffle((level - 128).astype(F), 2) / 64, unshuffle(fraction, 2)]
            h = self.product("lossless.into", np.concatenate(seen))
        else:
            logs = np.sign(d) * log2(1 + abs(d)) / 2
            back = np.concatenate([np.clip(d / 8, -8, 8), logs])
            h = h + self.product(f"lossless.passes.{p - 1}.absorb", back)
        for name in self.passes()[p]:
            h = self.block(name, h, self.condition(steps))
        out = self.product(f"lossless.passes.{p}.head", h)
        i, j = PLACES[p]
        mean = out[:3] * 4 + fraction[[1, 0, 2], i::2, j::2]
        shape = np.rint(np.clip(out[6:9] + F(0.5), 0, 1) * 7)
        share = out[9:12] + np.array([0.8, 0.4, 0.4], F)[:, None, None]
        return h, mean, out[3:6] + F(1), shape, share, out[12:15] * F(0.25)


class Stack:
    def __init__(self, network, words, coder, flags):
        self.network, self.side_information = network, flags & 5
        self.of_channels, self.signs = flags & 32, coder * (flags >> 7)
        self.coder = constriction.stream.stack.AnsCoder(np.frombuffer(words, "<u4")[::-1].astype("u4"))

    def uniform(self, size, count):
        if size == 1 or not count:
            return np.zeros(count, int)
        return self.coder.decode(constriction.stream.model.Uniform(size), count).astype(int)

    def bits_back(self, bits):
        self.coder.encode_reverse(bits, constriction.stream.model.Uniform(2))

    def each(self, counts):
        """Numbers of which each has counts of its own, less one each."""
        family = constriction.stream.model.Categorical(perfect=False)
        return self.coder.decode(family, counts.astype(float))

    def each_back(self, numbers, counts):
        family = constriction.stream.model.Categorical(perfect=False)
        self.coder.encode_reverse(numbers, family, counts.astype(float))

    def entries(self, tables, exact=False):
        """Table entries and reaches; tables are sorted."""
        entries, reach = np.empty((2, len(tables)), int)
        for t in np.unique(tables).tolist():
            at = tables == t
            model, reach[at] = self.network.model(t, exact)
            entries[at] = self.coder.decode(model, int(at.sum()))
        return entries, reach

    def pop_exact(self, table):
        """Symbols of the lossless layer."""
        order = np.argsort(table, kind="stable")
        symbols = np.empty(len(table), int)
        symbols[order] = self.numbers(*self.entries(table[order], exact=True))
        return symbols

    def numbers(self, entries, reach):
        """What table entries stand for, with what was escaped."""
        numbers = entries - reach
        for at in np.flatnonzero(entries == 2 * reach + 1):
            negative, n = self.uniform(2, 1)[0], self.uniform(24, 1)[0]
            value = 0
            for start in reversed(range(0, n, 16)):
                value |= int(self.uniform(1 << min(16, n - start), 1)[0]) << start
            value += reach[at] + (1 << n)
            numbers[at] = -value if negative else value
        return numbers

    def pop(self, table, shift):
        net = self.network
        coded = np.flatnonzero(~net.silent[table])
        order = coded[np.argsort(table[coded], kind="stable")]
        tables, shifts = table[order], shift[order]
        entries, reach = self.entries(tables)
        low = np.zeros(len(order), int)
        for b in range(1, shifts.max(initial=0) + 1):
            low[shifts == b] = self.uniform(1 << b, int((shifts == b).sum()))
        numbers = self.numbers(entries, reach)
        symbols = np.zeros(len(table), int)
        symbols[order] = (numbers << shifts) + low - ((1 << shifts) >> 1)
        return symbols


class Decoder:
    def __init__(self, network, stack, steps, count, height, width):
        self.net, self.stack, self.steps, self.count = network, stack, steps, count
        self.height, self.width = height, width
        self.known = {}

    def layer_of(self, run, k):
        return k if run == 0 else 7 + 2 * (run - 1) + (k >= 4)

    def steps_of(self, run, count):
        return [
            OFF if k >= count else s - 16 * (run - (self.layer_of(run, k) >= count))
            for k, s in enumerate(self.steps[:7])
        ]

    def below(self, edge, scale, shape):
        at = edge / scale
        ratio, weight = (part[shape] for part in self.net.mixture)
        return (1 - weight) * sigmoid(at) + weight * sigmoid(at / ratio)

    def bits(self, n, scale, shape):
        n = -np.abs(n)
        mass = self.below(n + F(0.5), scale, shape) - self.below(n - F(0.5), scale, shape)
        return -log2(np.maximum(mass, F(2.0**-24)))

    @staticmethod
    def shift(saved, distance=F(1)):
        return np.clip(saved / (2 * W * distance), F(-0.4), F(0.4))

    def whole_window(self, symbols, level, shape):
        scale = exp2(level / F(8) - 8)
        n = np.abs(symbols).astype(F)
        less, here, more = (self.bits(n + k, scale, shape) for k in (-1, 0, 1))
        outer = n + F(0.5) + self.shift(more - here)
        inner = np.where(n == 0, -outer, n - F(0.5) + self.shift(here - less))
        silent = self.net.silent[self.table(level, shape)[0]]
        low = np.where(silent, -np.inf, np.where(symbols < 0, -outer, inner))
        return low.astype(F), np.where(silent, np.inf, np.where(symbols < 0, -inner, outer)).astype(F)

    @staticmethod
    def table(level, shape):
        b = -(-np.maximum(level - 88, 0) // 8)
        return (level - 8 * b) * 8 + shape, b

    def ladder_pass(self, channels, key, mean, delta, level, shape, size):
        if self.stack.side_information:
            colours = [COLOURS[key[0]][c] for c in channels]
            symbols = self.pop_with_side_information(colours, level, shape, size)
        else:
            symbols = self.stack.pop(*self.table(level, shape))
        if len(self.steps) > 7:
            low, high = self.whole_window(symbols, level, shape)
            value = mean + symbols.astype(F) * delta
            self.known[key] = [value, mean + low * delta, mean + high * delta, symbols == 0]
        return symbols.astype(F) * delta

    def pop_with_side_information(self, colours, level, shape, size):
        """Symbols of a group, level and shape by channel, row and column; size: of the packed pass."""
        net, (rows, columns) = self.net, size
        signs = 0 if self.stack.signs == 2 and len(self.steps) > 7 else self.stack.signs
        symbols = np.zeros(len(level), int)
        coded = np.flatnonzero(~net.silent[self.table(level, shape)[0]])
        if not len(coded):
            return symbols
        if signs:
            region = 1 + self.stack.uniform(4, 1)[0] if self.stack.uniform(2, 1)[0] else 0
            modes = 23 if signs == 1 else 30
            mode = 1 + self.stack.uniform(modes, 1)[0] if self.stack.uniform(2, 1)[0] else 0
        else:
            region = self.stack.uniform(5, 1)[0] if self.stack.of_channels else 0
            mode = self.stack.uniform(22, 1)[0]
        if mode == region == 0 and not signs:
            return self.stack.pop(*self.table(level, shape))
        squares = (1, 0), (1, 1), (2, 1), (4, 0), (4, 1), (1, 0), (1, 1), None, (1, 0), (1, 1)
        eighths = 8 if mode < 16 else 6 if mode < 23 else 0 if mode == 23 else 7
        row = coded // columns % rows
        apart = EIGHTHS[row % 8] < eighths
        own = coded[apart if signs == 2 else row < rows * eighths // 8]
        places = [(at // (rows * columns), at // columns % rows, at % columns) for at in own.tolist()]
        kinds = []
        if region:
            of = 16 if region < 3 else 2**24
            keys = [(channel, row // of, column // of) for channel, row, column in places]
            kinds.append((keys, np.array(CHANNEL_PRIORS[(region - 1) % 2]), 2 * np.arange(9) - 8))
        if mode not in (0, 22, 23, 30):
            number = mode - 1 if mode < 22 else mode
            side, apart = squares[number // 3]
            keys = [
                (apart * (colours[channel] > 0), row // side, column // side)
                for channel, row, column in places
            ]
            kinds.append((keys, np.array(PRIORS[number % 3]), 4 * np.arange(9) - 16))
        levels, found = [level[own]], []
        for keys, prior, shifts in kinds:
            _, key = np.unique(np.array(keys).reshape(-1, 3), axis=0, return_inverse=True)
            latents = self.stack.each(np.tile(prior * 65536 - 1, (key.max(initial=-1) + 1, 1)))
            found.append((key.ravel(), latents))
            levels.append(levels[-1] + shifts[latents[key.ravel()]])
        symbols[own] = self.stack.pop(*self.table(self.moved(levels[-1], shape[own]), shape[own]))
        for (_, prior, shifts), (key, latents), before in [*zip(kinds, found, levels)][::-1]:
            counts = [
                self.posterior(
                    symbols[own][key == n], before[key == n], shape[own][key == n], prior, shifts
                )
                for n in range(len(latents))
            ]
            self.stack.each_back(latents, np.array(counts).reshape(-1, 9))
        if signs == 1:
            self.set_signs_by_parities(symbols, coded, level, shape, size, rows * eighths // 8)
        elif signs:
            table = self.table(level, shape)[0]
            numbers = np.arange(len(level))
            row, place = numbers // columns % rows, numbers % (rows * columns)
            eighth = EIGHTHS[row % 8]
            order = np.lexsort((numbers[coded], place[coded], eighth[coded]))
            self.set_signs(symbols, table, coded[order].tolist(), eighth, eighths)
        rest = np.setdiff1d(coded, own)
        symbols[rest] = self.stack.pop(*self.table(level[rest], shape[rest]))
        return symbols

    def set_signs_by_parities(self, symbols, coded, level, shape, size, last):
        """Signs of groups that end in the first rows, from their parities; gives back bits."""
        rows, columns = size
        area = rows * columns
        total, group, bits = 0, [], []
        for at in sorted(coded.tolist(), key=lambda at: (at % area, at // area)):
            counts = self.net.counts[self.table(level[[at]], shape[[at]])[0][0]]
            group.append(at)
            total += min((2**24 - int(counts[len(counts) // 2 - 1])) // 2**13, 512)
            if total < 4096:
                continue
            said = [at for at in group if symbols[at]]
            if said and at // columns % rows < last:
                bits.append(symbols[said[0]] < 0)
                odd = symbols[group].sum() % 2
                symbols[said[0]] = -abs(symbols[said[0]]) if odd else abs(symbols[said[0]])
            total, group = total - 4096, []
        self.stack.bits_back(np.array(bits, np.int32))

    def set_signs(self, symbols, table, order, eighth, eighths, fair=None):
        """Signs of slices in the first eighths, from syndromes of the others; gives back bits.

        Args:
            order: coded symbols.
            eighth: of all symbols.
            fair: which of them may have their signs said, if not all.
        """
        slices = [[] for _ in range(5)]
        for number, at in enumerate(order):
            zeros = 4 if number % 16 == 0 else (number & -number).bit_length() - 1
            slices[4 - zeros].append(at)
        bits = []
        for before, own in zip(slices, slices[1:]):
            signs = [at for at in before if symbols[at] and eighth[at] < eighths]
            signs = [at for at in signs if fair is None or fair[at]]
            syndrome, total, group = {}, 0, 0
            for number, at in enumerate(own):
                if eighth[at] >= eighths:
                    break
                pattern = symbols[at] % 2 * (9, 11, 13, 15)[number % 4]
                for bit in range(group, group // 32 * 32 + 32)[:4]:
                    syndrome[bit] = syndrome.get(bit, 0) ^ pattern >> bit - group & 1
                counts = self.net.counts[table[at]]
                most = 1024 if table[at] < 712 else 512
                total += min((2**24 - int(counts[len(counts) // 2 - 1])) // 2**13, most)
                if total >= 4096 * (group + 1):
                    group += 1
            for number, at in enumerate(signs[:group]):
                bits.append(symbols[at] < 0)
                symbols[at] = -abs(symbols[at]) if syndrome[number] else abs(symbols[at])
        self.stack.bits_back(np.array(bits, np.int32))

    def moved(self, level, shape):
        """Levels clamped to those that tables are coded at."""
        lowest = [min(np.flatnonzero(~self.net.silent[s:712:8])) for s in range(8)]
        return np.clip(level, np.array(lowest)[shape], 184)

    def posterior(self, symbols, level, shape, prior, shifts):
        """Counts less one of a latent of these symbols."""
        total = np.rint(64 * (8 - log2(prior.astype(F)))).astype(int)
        for k in range(9):
            table, b = self.table(self.moved(level + shifts[k], shape), shape)
            for n, t, low in zip(np.minimum(np.abs(symbols), 255).tolist(), table, b.tolist()):
                entry = (n + (1 << low) // 2) >> low
                counts = self.net.counts[t]
                reach = len(counts) // 2 - 1
                count = counts[reach + entry] if entry <= reach else counts[-1]
                total[k] += int(np.rint(F(64) * (log2(F(2**24) / F(count)) + F(low))))
        w = exp2((total.min() - total).astype(F) / F(64))
        whole = F(0)
        for one in w:
            whole += one
        counts = np.floor(w * (F(2**24 - 9) / whole)).astype(int)
        counts[np.argmax(w)] += 2**24 - 9 - counts.sum()
        return counts

    def refined_pass(self, channels, key, mean, delta, level, shape, _):
        value, low, high, fresh = self.known[key]
        table, b = self.table(level, shape)
        quiet = fresh & self.net.silent[table] & (low < mean) & (mean < high)
        whole = np.flatnonzero(~quiet & np.isinf(low))
        part = np.flatnonzero(~quiet & ~np.isinf(low))
        a, z = (low[part] - mean[part]) / delta, (high[part] - mean[part]) / delta
        new = fresh[part]
        width, centre = z - a, np.rint((a + z) / 2)
        count = np.clip(np.rint(width), 1, 3)
        size = width / count
        first = np.where(new, centre - F(0.5), a + size * (count == 3))
        second = np.where(new, centre + F(0.5), np.where(count == 1, z, first + size))
        edges = [a, np.clip(first, a, z), np.clip(second, a, z), z]
        scale = exp2(level[part] / F(8) - 8)
        points, zero, logs = [], [], []
        for k, (x, y) in enumerate(zip(edges, edges[1:]), -1):
            here = new & (centre + k == 0) & (x < 0) & (y > 0)
            points.append(np.where(here, F(0), (x + y) / 2))
            zero.append(here)
            flip = x + y > 0
            upper = self.below(np.where(flip, -x, y), scale, shape[part])
            lower = self.below(np.where(flip, -y, x), scale, shape[part])
            logs.append(log(np.maximum(upper - lower, F(1e-30))))
        points[1] = np.where(~new & (count == 1), (value[part] - mean[part]) / delta, points[1])
        odds, index = [], []
        for k in (0, 2):
            empty = edges[k + 1] - edges[k] < F(0.02)
            i = np.clip(np.rint((logs[k] - logs[1] + 10) * 2) + 1, 1, 41)
            index.append(np.where(empty, 0, i).astype(int))
            odds.append(np.where(empty, -np.inf, (i - 1) / 2 - 10).astype(F))
        tables = 712 + 42 * index[0] + index[1]
        pop = self.pop_with_signs if self.saying else self.stack.pop
        symbols = pop(np.concatenate([table[whole], tables]), np.concatenate([b[whole], 0 * tables]))
        value = np.where(quiet, mean, value)
        s = symbols[: len(whole)]
        wl, wh = self.whole_window(s, level[whole], shape[whole])
        value[whole] = mean[whole] + s.astype(F) * delta
        low, high, fresh = low.copy(), high.copy(), fresh.copy()
        low[whole], high[whole] = mean[whole] + wl * delta, mean[whole] + wh * delta
        fresh[whole] = s == 0
        s = symbols[len(whole) :]
        total = log(1 + exp(odds[0]) + exp(odds[1]))
        costs = [(total - o) * F(1 / math.log(2)) for o in (odds[0], F(0), odds[1])]
        ends = list(edges)
        for k, empty in ((1, index[0] == 0), (2, index[1] == 0)):
            p, q = points[k - 1], points[k]
            with np.errstate(invalid="ignore"):
                moved = self.shift(costs[k] - costs[k - 1], np.maximum(q - p, F(0.02)))
                border = np.minimum(np.maximum((p + q) / 2 + moved, p), q)
            ends[k] = np.where(empty, ends[k], border)

        def pick(three):
            return np.choose(s + 1, three)

        value[part] = mean[part] + delta * pick(points)
        low[part] = mean[part] + delta * pick(ends[:3])
        high[part] = mean[part] + delta * pick(ends[1:])
        fresh[part] = new & pick(zero)
        self.known[key] = [value, low, high, fresh]
        return value - mean

    def pop_with_signs(self, table, low):
        """Symbols of a pass of the last level."""
        eighths = (8, 7, 6, 0)[self.stack.uniform(4, 1)[0]]
        coded = np.flatnonzero(~self.net.silent[table])
        eighth = np.zeros(len(table), int)
        eighth[coded] = EIGHTHS[np.arange(len(coded)) // 64 % 8]
        inside, rest = coded[eighth[coded] < eighths], coded[eighth[coded] >= eighths]
        symbols = np.zeros(len(table), int)
        symbols[inside] = self.stack.pop(table[inside], low[inside])
        order = coded[np.argsort(eighth[coded], kind="stable")].tolist()
        fair = (table < 712) | ((table - 712) // 42 == (table - 712) % 42)
        self.set_signs(symbols, table, order, eighth, eighths, fair)
        symbols[rest] = self.stack.pop(table[rest], low[rest])
        return symbols

    def run(self, run):
        net = self.net
        self.saying = self.stack.signs == 2 and run and 2 * run + 7 == len(self.steps)
        steps, present = self.steps_of(run, len(self.steps)), self.steps_of(run, self.count)
        h, last, values = None, None, {}
        for k, name in enumerate(NAMES):
            stride, _, passes = SIZES[name]
            seen = steps if present[k] == steps[k] else present
            delta = exp2(F((steps[k] if present[k] == OFF else present[k]) / 16 - 1))
            size = self.height // stride, self.width // stride
            for p in range(passes):
                before, found = last, []
                for n, channels in enumerate(groups(k, net.grouped)):
                    if found:
                        before = [np.concatenate(both) for both in zip(*found)]
                    h, mean, level, shape = net.prior(k, p, n, seen, size, h, before)
                    layer, flat, key = self.layer_of(run, k), mean.ravel(), (k, p, n)
                    if present[k] == OFF:
                        residual = np.zeros_like(flat)
                    elif layer >= self.count:
                        residual = self.known[key][0] - flat
                    else:
                        code = self.refined_pass if run else self.ladder_pass
                        level, shape = (x.astype(int).ravel() for x in (level, shape))
                        residual = code(channels, key, flat, delta, level, shape, mean.shape[1:])
                    residual = residual.reshape(mean.shape)
                    found.append((mean + residual, residual))
                order = np.argsort(np.concatenate(groups(k, net.grouped)))
                last = [np.concatenate(both)[order] for both in zip(*found)]
                values[k, p] = last[0]
        self.found, self.present = net.found(seen, h, last, values), present


def exact(net, stack, shown, steps, grey):
    """The lossless layer of a tile: what the others show, in sixteenths, 3 x H x W -> the pixels."""
    rows, columns = shown.shape[1:]
    level = (shown + 8) // 16
    pixels = np.zeros((3, rows, columns), np.uint8)
    h, d, planes = None, None, []
    for p, (i, j) in enumerate(PLACES):
        h, *heads = net.lossless_pass(p, steps, shown, h, d)
        inside = slice((rows - i + 1) // 2), slice((columns - j + 1) // 2)
        means, scales, shapes, own_shares, surprises = (x[:, inside[0], inside[1]] for x in heads)
        d = np.zeros((3, *h.shape[1:]), F)
        errors, news = [], []
        planes.append([])
        for k, colour in enumerate((1, 0, 2)):
            base = level[colour, i::2, j::2]
            mean, scale = means[k], scales[k]
            for n, (source, target) in enumerate(((0, 1), (0, 2), (1, 2))):
                if target == k:
                    mean = mean + own_shares[n] * errors[source]
                    scale = scale + surprises[n] * news[source]
            plain = np.rint(np.clip(mean, -255, 255) * 16).astype(int)
            step = np.rint((np.clip(scale, -5, 7) + 5) * 8).astype(int)
            near = []
            for place, earlier in zip(PLACES[:p], planes):
                wider = np.pad(earlier[k], 1)
                for a in (-1, 0, 1):
                    for b in (-1, 0, 1):
                        down, right = 2 * a + place[0] - i, 2 * b + place[1] - j
                        if max(abs(down), abs(right)) <= 2:
                            part = wider[1 + a : 1 + a + h.shape[1], 1 + b : 1 + b + h.shape[2]]
                            near.append(part[inside])
            near += [plane[inside] for plane in planes[p]]
            octaves, shared = stack.pop_exact(np.full(2, 32 * 9 * 8 + 7))
            shares = stack.pop_exact(np.full(len(near), 64 * 9 * 8 + 7)) if shared else []
            shift = np.zeros(plain.shape, F)
            for share, error in zip(shares, near):
                shift += F(share / 64) * error
            m = np.clip(plain + np.rint(shift * 16), -4080, 4080).astype(int)
            w = (m + 8) // 16
            f = m - 16 * w
            table = (np.clip(step + octaves, 0, 96) * 9 + abs(f)) * 8 + shapes[k].astype(int)
            symbols = stack.pop_exact(table.ravel()).reshape(m.shape)
            found = np.where(f < 0, -symbols, symbols) + w
            pixels[colour, i::2, j::2] = base + found
            d[k][inside] = found
            errors.append((found - plain.astype(F) / 16).astype(F))
            planes[p].append(np.zeros(h.shape[1:], F))
            planes[p][k][inside] = errors[k]
            if grey:
                for n, other in ((1, 0), (2, 2)):
                    d[n][inside] = found + base - level[other, i::2, j::2]
                    pixels[other, i::2, j::2] = base + found
                break
            size = exp2(step.astype(F) / F(8) - F(5))
            news.append(np.minimum(log2(1 + abs(errors[k]) / size), F(6)))
    return pixels


def decode(data, network):
    """A file's bytes, and its network -> uint8 H x W x 3, or H x W if it is grey."""
    assert data[:5] == b"\x89HVC\x01" and data[5] in (1, 2) and not data[6] & ~253
    lossless = data[6] >> 3 & 1
    all_layers, layers = data[7], data[7] - lossless
    width, height = (int.from_bytes(data[a : a + 3], "little") for a in (14, 17))
    tall, wide = (n + -n % 64 for n in (height, width))
    side = 64 * data[20] or max(tall, wide)
    rows, columns = -(-tall // side), -(-wide // side)
    tiles = rows * columns
    steps = list(data[24 : 24 + layers])
    at, lengths = 24 + layers, []
    for _ in range(all_layers * tiles):
        length, place = 0, 0
        while True:
            length |= (data[at] & 127) << place
            at, place = at + 1, place + 7
            if data[at - 1] < 128:
                break
        lengths.append(4 * length)
    if data[6] & 16:
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    words, count, filter_ = [b""] * tiles, 0, None
    filtered = [layers - 1] if data[6] & 64 else []
    if filtered and data[5] == 2 and layers > 7:
        filtered = range(8, layers, 2)
    while count < all_layers and at < len(data):
        for tile, length in enumerate(lengths[count * tiles : (count + 1) * tiles]):
            words[tile] += data[at : at + length]
            at += length + 2
        if count in filtered:
            size = 4 * words[0][-1]
            filter_, words[0] = words[0][-size:-1], words[0][:-size]
        count += 1
    found, stacks, known = [], [], min(count, layers)
    for tile in range(tiles):
        top, left = tile // columns * side, tile % columns * side
        shape = min(side, tall - top), min(side, wide - left)
        stacks.append(Stack(network, words[tile], data[5], data[6]))
        decoder = Decoder(network, stacks[tile], steps, known, *shape)
        run = 0
        while decoder.layer_of(run, 0) < known:
            decoder.run(run)
            run += 1
        found.append(decoder.found)
    whole = network.picture(join(found, columns), decoder.present)
    pixels, shown = (x[:, :height, :width] for x in whole)
    if count > layers:
        for tile in range(tiles):
            top, left = tile // columns * side, tile % columns * side
            here = np.s_[:, top : top + side, left : left + side]
            pixels[here] = exact(network, stacks[tile], shown[here], decoder.present, bool(data[21]))
    if filter_:
        pixels = restored(shown.astype(int), filter_)
    if data[21]:
        return (np.tensordot((19595, 38470, 7471), pixels.astype(int), 1) + 32768 >> 16).astype(
            np.uint8
        )
    return pixels.transpose(1, 2, 0)


def restored(shown, data):
    """Pixels, 3 x H x W, from sixteenths of grey levels and the bytes of a filter."""
    bits = iter("".join(f"{byte:08b}" for byte in data))

    def take(count):
        return int("0" + "".join(next(bits) for _ in range(count)), 2)

    near = [(0, 1), (1, -1), (1, 0), (1, 1), (0, 2), (2, 0)]
    far = [*near, (0, 3), (1, -2), (1, 2), (2, -1), (2, 1), (3, 0)]
    r, g, b = shown
    planes = np.pad([r + g + b, r - g, r + g - 2 * b], ((0, 0), (3, 3), (3, 3)), "edge")
    rows, columns = shown.shape[1:]

    def apart(component, i, j):
        """What the pixel so far away is more than this one."""
        moved = planes[component, 3 + i : 3 + i + rows, 3 + j : 3 + j + columns]
        return moved - planes[component, 3 : 3 + rows, 3 : 3 + columns]

    corrections = np.zeros((3, rows, columns), int)
    for own in range(3):
        if not take(1):
            continue
        limit, unit, rice = math.isqrt(2 ** take(5)), 64 << take(2), take(3)
        pairs = [(k, d, 99999) for k in range(3) for d in near] if own else [(0, d, 99999) for d in far]
        for k, (i, j), most in [*pairs, *((own, d, limit) for d in near)]:
            high = 0
            while take(1):
                high += 1
            folded = (high << rice) + take(rice)
            weight = -(folded + 1) // 2 if folded % 2 else folded // 2
            both = sum(np.clip(apart(k, s * i, s * j), -most, most) for s in (1, -1))
            corrections[own] += weight * (512 // unit) * both
    y, u, v = corrections
    colours = np.stack([2 * y + 3 * u + v, 2 * y - 3 * u + v, 2 * y - 2 * v])
    return np.clip((shown * 3072 + colours + 24576) // 49152, 0, 255).astype(np.uint8)


def join(parts, columns):
    """Planes C x H x W of all tiles, row by row -> of the picture."""
    rows = [parts[at : at + columns] for at in range(0, len(parts), columns)]
    return np.concatenate([np.concatenate(row, 2) for row in rows], 1)
