/**
 * What the symbols of a pass leave known of its coefficients, and what refinement layers say further
 * (docs/format.md, "Symbols of a refinement layer"). One number per coefficient, by channel, row and column.
 */
import { HvcError } from "./errors.js";
import { below, clamp, exp, exp2, f32, inBits, log, log2, rint } from "./exact.js";
import { PART_TABLES, pop, shiftOf, tableOf } from "./tables.js";

const TWICE_WORTH = f32((2 * 6 * 1.3 ** 2) / Math.LN2);
const LARGEST_SHIFT = f32(0.4);
const NARROWEST = f32(0.02);
const LEAST_MASS = f32(1e-30);
const MASS_FLOOR = 2 ** -24;
const ODDS = 42;

/** How far rate and distortion move the border between two symbols, in steps. */
function borderShift(saved, distance) {
  return clamp(f32(saved / f32(TWICE_WORTH * distance)), -LARGEST_SHIFT, LARGEST_SHIFT);
}

/** What is known of some coefficients: value, window (coefficient units), and whether all symbols were zero. */
export class Known {
  constructor(count) {
    this.value = new Float32Array(count);
    this.low = new Float32Array(count);
    this.high = new Float32Array(count);
    this.fresh = new Uint8Array(count);
  }

  copy() {
    const other = new Known(0);
    for (const field of ["value", "low", "high", "fresh"]) other[field] = this[field].slice();
    return other;
  }

  /** A coefficient that was coded as on the ladder. */
  setWhole(at, symbol, mean, delta, window) {
    this.value[at] = f32(mean + f32(symbol * delta));
    this.low[at] = f32(mean + f32(window[0] * delta));
    this.high[at] = f32(mean + f32(window[1] * delta));
    this.fresh[at] = symbol === 0;
  }
}

/** Windows under a model's distributions and tables. */
export class Windows {
  /**
   * @param {Tables} tables
   * @param {Float32Array} ratio, weight Of the wide parts of distributions, by shape.
   */
  constructor(tables, ratio, weight) {
    Object.assign(this, { tables, ratio, weight });
  }

  below(edge, level, shape) {
    return below(edge, exp2(f32(level / 8 - 8)), this.ratio[shape], this.weight[shape]);
  }

  bits(symbol, level, shape) {
    const far = -Math.abs(symbol);
    const mass = f32(this.below(f32(far + 0.5), level, shape) - this.below(f32(far - 0.5), level, shape));
    return -log2(Math.max(mass, MASS_FLOOR));
  }

  /** Ends of the window that a symbol of the ladder leaves, in steps from the mean. */
  ofSymbol(symbol, level, shape) {
    if (this.tables.silent[tableOf(level, shape)]) return [-Infinity, Infinity];
    const size = Math.abs(symbol);
    const [less, here, more] = [-1, 0, 1].map((k) => this.bits(size + k, level, shape));
    const outer = f32(f32(size + 0.5) + borderShift(f32(more - here), 1));
    const inner = size ? f32(f32(size - 0.5) + borderShift(f32(here - less), 1)) : -outer;
    return symbol < 0 ? [-outer, -inner] : [inner, outer];
  }

  /** What symbols of the ladder leave known. */
  afterLadder(symbols, prior, delta) {
    const known = new Known(symbols.length);
    symbols.forEach((symbol, at) => {
      const window = this.ofSymbol(symbol, prior.level[at], prior.shape[at]);
      known.setWhole(at, symbol, prior.mean[at], delta, window);
    });
    return known;
  }

  /**
   * Take what a refinement layer says of a pass off the stack.
   *
   * @param {Known} before
   * @param {{mean: Float32Array, level: Uint8Array, shape: Uint8Array}} prior
   * @returns {Known}
   * @throws {HvcError} Symbols that cannot be.
   */
  refine(stack, before, prior, delta) {
    const { mean, level, shape } = prior;
    const after = before.copy();
    const [whole, parted] = [[], []];
    for (let at = 0; at < mean.length; at++) {
      const quiet =
        before.fresh[at] &&
        this.tables.silent[tableOf(level[at], shape[at])] &&
        before.low[at] < mean[at] &&
        mean[at] < before.high[at];
      if (quiet) after.value[at] = mean[at];
      else (before.low[at] === -Infinity ? whole : parted).push(at);
    }
    const parts = parted.map((at) => this.parts(before, at, mean[at], level[at], shape[at], delta));
    const table = Int16Array.from([
      ...whole.map((at) => tableOf(level[at], shape[at])),
      ...parts.map(({ odds }) => PART_TABLES + ODDS * odds[0] + odds[1]),
    ]);
    const shift = new Uint8Array(table.length);
    whole.forEach((at, n) => (shift[n] = shiftOf(level[at])));
    const symbols = pop(stack, this.tables, table, shift);
    whole.forEach((at, n) => {
      after.setWhole(at, symbols[n], mean[at], delta, this.ofSymbol(symbols[n], level[at], shape[at]));
    });
    parted.forEach((at, n) => narrow(after, at, symbols[whole.length + n], parts[n], mean[at], delta));
    return after;
  }

  /** The parts of a window: edges and points in steps from the mean, whether they keep a fresh coefficient
   * fresh, and the odds of the outer ones as they are coded. */
  parts(known, at, mean, level, shape, delta) {
    const low = f32(f32(known.low[at] - mean) / delta);
    const high = f32(f32(known.high[at] - mean) / delta);
    const fresh = known.fresh[at];
    const width = f32(high - low);
    const centre = rint(f32(low + high) / 2);
    const count = clamp(rint(width), 1, 3);
    const size = f32(width / count);
    const first = fresh ? f32(centre - 0.5) : count === 3 ? f32(low + size) : low;
    const second = fresh ? f32(centre + 0.5) : count === 1 ? high : f32(first + size);
    const edges = [low, clamp(first, low, high), clamp(second, low, high), high];
    const [points, zero, logs] = [[], [], []];
    for (let k = 0; k < 3; k++) {
      const [a, b] = [edges[k], edges[k + 1]];
      const middle = f32(a + b);
      zero.push(fresh && centre + k === 1 && a < 0 && b > 0);
      points.push(zero[k] ? 0 : f32(middle / 2));
      // On the negative side both probabilities are small, so their difference keeps its digits.
      const [upper, lower] = middle > 0 ? [-a, -b] : [b, a];
      const mass = f32(this.below(upper, level, shape) - this.below(lower, level, shape));
      logs.push(log(Math.max(mass, LEAST_MASS)));
    }
    if (!fresh && count === 1) points[1] = f32(f32(known.value[at] - mean) / delta);
    const odds = [0, 2].map((k) => {
      if (f32(edges[k + 1] - edges[k]) < NARROWEST) return 0;
      return clamp(rint(f32(f32(logs[k] - logs[1]) + 10) * 2) + 1, 1, ODDS - 1);
    });
    return { edges, points, zero, odds };
  }
}

/** The part of its window that a symbol leaves of a coefficient. */
function narrow(known, at, symbol, { edges, points, zero, odds }, mean, delta) {
  if (Math.abs(symbol) > 1) throw new HvcError("the coded data do not fit the model");
  const ends = [...edges];
  const [down, up] = odds.map((i) => (i ? (i - 1) / 2 - 10 : -Infinity));
  const total = log(f32(f32(1 + exp(down)) + exp(up)));
  const costs = [down, 0, up].map((odd) => inBits(f32(total - odd)));
  for (const k of [1, 2]) {
    if (!odds[k - 1]) continue;
    const [left, right] = [points[k - 1], points[k]];
    const moved = borderShift(f32(costs[k] - costs[k - 1]), Math.max(f32(right - left), NARROWEST));
    ends[k] = Math.min(Math.max(f32(f32(left + right) / 2 + moved), left), right);
  }
  known.value[at] = f32(mean + f32(delta * points[symbol + 1]));
  known.low[at] = f32(mean + f32(delta * ends[symbol + 1]));
  known.high[at] = f32(mean + f32(delta * ends[symbol + 2]));
  known.fresh[at] = known.fresh[at] && zero[symbol + 1];
}
