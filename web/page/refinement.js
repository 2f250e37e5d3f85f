/**
 * What the symbols of a pass leave known of its coefficients, and what refinement layers say further
 * (docs/format.md, "Symbols of a refinement layer"). One number per coefficient, by channel, row and column.
 */
import { HvcError } from "./errors.js";
import { below, clamp, exp, exp2, f32, inBits, log, log2, rint } from "./exact.js";
import { popWithSigns } from "./signs.js";
import { ODDS, PART_TABLES, pop, shiftOf, tableOf } from "./tables.js";

const TWICE_WORTH = f32((2 * 6 * 1.3 ** 2) / Math.LN2);
const LARGEST_SHIFT = f32(0.4);
const NARROWEST = f32(0.02);
const LEAST_MASS = f32(1e-30);
const MASS_FLOOR = 2 ** -24;
const LEVELS = 185;

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
}

/** Up to three parts of each of some windows, in steps from the prior's mean. */
class Parts {
  constructor(count) {
    const arrays = (size, kind) => Array.from({ length: size }, () => new kind(count));
    this.edges = arrays(4, Float32Array);
    this.points = arrays(3, Float32Array); // that the parts stand for
    this.zero = arrays(3, Uint8Array); // whether a part keeps a fresh coefficient fresh
    this.odds = arrays(2, Uint8Array); // of the first and the third part, as they are coded
  }
}

/** Windows under a model's distributions and tables. */
export class Windows {
  /**
   * @param {Tables} tables
   * @param {number[]} ratio, weight Of the wide parts of distributions, by shape.
   */
  constructor(tables, ratio, weight) {
    Object.assign(this, { tables, ratio, weight });
    this.scale = Float32Array.from({ length: LEVELS }, (_, level) => exp2(f32(level / 8 - 8)));
  }

  below(edge, level, shape) {
    return below(edge, this.scale[level], this.ratio[shape], this.weight[shape]);
  }

  bits(symbol, level, shape) {
    const far = -Math.abs(symbol);
    const mass = f32(this.below(f32(far + 0.5), level, shape) - this.below(f32(far - 0.5), level, shape));
    return -log2(Math.max(mass, MASS_FLOOR));
  }

  /** Make known what a symbol of the ladder says of a coefficient: the value, and the window around it. */
  tell(known, at, symbol, { mean, level: levels, shape: shapes }, delta) {
    const [level, shape] = [levels[at], shapes[at]];
    let low = -Infinity;
    let high = Infinity;
    if (!this.tables.silent[tableOf(level, shape)]) {
      const size = Math.abs(symbol);
      const here = this.bits(size, level, shape);
      const outer = f32(f32(size + 0.5) + borderShift(f32(this.bits(size + 1, level, shape) - here), 1));
      let inner = -outer;
      if (size) inner = f32(f32(size - 0.5) + borderShift(f32(here - this.bits(size - 1, level, shape)), 1));
      low = symbol < 0 ? -outer : inner;
      high = symbol < 0 ? -inner : outer;
    }
    known.value[at] = f32(mean[at] + f32(symbol * delta));
    known.low[at] = f32(mean[at] + f32(low * delta));
    known.high[at] = f32(mean[at] + f32(high * delta));
    known.fresh[at] = symbol === 0;
  }

  /** What symbols of the ladder leave known. */
  afterLadder(symbols, prior, delta) {
    const known = new Known(symbols.length);
    for (let at = 0; at < symbols.length; at++) this.tell(known, at, symbols[at], prior, delta);
    return known;
  }

  /**
   * Take what a refinement layer says of a pass off the stack.
   *
   * @param {Known} before
   * @param {{mean: Float32Array, level: Uint8Array, shape: Uint8Array}} prior
   * @param {boolean} signs Whether it says signs.
   * @returns {Known}
   * @throws {HvcError} Symbols that cannot be.
   */
  refine(stack, before, prior, delta, signs) {
    const { mean, level, shape } = prior;
    const after = before.copy();
    const whole = new Int32Array(mean.length);
    const parted = new Int32Array(mean.length);
    let [wholes, some] = [0, 0];
    for (let at = 0; at < mean.length; at++) {
      const quiet =
        before.fresh[at] &&
        this.tables.silent[tableOf(level[at], shape[at])] &&
        before.low[at] < mean[at] &&
        mean[at] < before.high[at];
      if (quiet) after.value[at] = mean[at];
      else if (before.low[at] === -Infinity) whole[wholes++] = at;
      else parted[some++] = at;
    }
    const parts = new Parts(some);
    const table = new Int16Array(wholes + some);
    const shift = new Uint8Array(table.length);
    for (let n = 0; n < wholes; n++) {
      table[n] = tableOf(level[whole[n]], shape[whole[n]]);
      shift[n] = shiftOf(level[whole[n]]);
    }
    for (let n = 0; n < some; n++) {
      const at = parted[n];
      this.part(parts, n, before, at, mean[at], level[at], shape[at], delta);
      table[wholes + n] = PART_TABLES + ODDS * parts.odds[0][n] + parts.odds[1][n];
    }
    const symbols = (signs ? popWithSigns : pop)(stack, this.tables, table, shift);
    for (let n = 0; n < wholes; n++) this.tell(after, whole[n], symbols[n], prior, delta);
    for (let n = 0; n < some; n++) narrow(after, parted[n], symbols[wholes + n], parts, n, mean[parted[n]], delta);
    return after;
  }

  /** Part a window. */
  part({ edges, points, zero, odds }, n, known, at, mean, level, shape, delta) {
    const low = f32(f32(known.low[at] - mean) / delta);
    const high = f32(f32(known.high[at] - mean) / delta);
    const fresh = known.fresh[at];
    const width = f32(high - low);
    const centre = rint(f32(low + high) / 2);
    const count = clamp(rint(width), 1, 3);
    const size = f32(width / count);
    const first = fresh ? f32(centre - 0.5) : count === 3 ? f32(low + size) : low;
    const second = fresh ? f32(centre + 0.5) : count === 1 ? high : f32(first + size);
    edges[0][n] = low;
    edges[1][n] = clamp(first, low, high);
    edges[2][n] = clamp(second, low, high);
    edges[3][n] = high;
    for (let k = 0; k < 3; k++) {
      const [a, b] = [edges[k][n], edges[k + 1][n]];
      const stays = fresh && centre + k === 1 && a < 0 && b > 0;
      zero[k][n] = stays;
      points[k][n] = stays ? 0 : f32(a + b) / 2;
    }
    if (!fresh && count === 1) points[1][n] = f32(known.value[at] - mean) / delta;
    const middle = this.logMass(edges[1][n], edges[2][n], level, shape);
    for (let k = 0; k < 2; k++) {
      const [a, b] = [edges[2 * k][n], edges[2 * k + 1][n]];
      if (f32(b - a) < NARROWEST) continue; // 0: it cannot be
      const odd = f32(this.logMass(a, b, level, shape) - middle);
      odds[k][n] = clamp(rint(f32(odd + 10) * 2) + 1, 1, ODDS - 1);
    }
  }

  /** Logarithm of the probability of what lies between two edges. */
  logMass(a, b, level, shape) {
    // On the negative side both probabilities are small, so their difference keeps its digits.
    const flip = f32(a + b) > 0;
    const upper = this.below(flip ? -a : b, level, shape);
    const lower = this.below(flip ? -b : a, level, shape);
    return log(Math.max(f32(upper - lower), LEAST_MASS));
  }
}

/** Make known the part of its window that a symbol leaves of a coefficient. */
function narrow(known, at, symbol, parts, n, mean, delta) {
  if (symbol < -1 || symbol > 1) throw new HvcError("the coded data do not fit the model");
  const part = symbol + 1;
  const [low, high] = [border(parts, n, part), border(parts, n, part + 1)];
  known.value[at] = f32(mean + f32(delta * parts.points[part][n]));
  known.low[at] = f32(mean + f32(delta * low));
  known.high[at] = f32(mean + f32(delta * high));
  known.fresh[at] &&= parts.zero[part][n];
}

/** Where parts of a window end: at their edges, but between two that can be where rate and distortion move it. */
function border({ edges, points, odds }, n, edge) {
  if (edge === 0 || edge === 3 || !odds[edge - 1][n]) return edges[edge][n];
  const [down, up] = [oddsOf(odds[0][n]), oddsOf(odds[1][n])];
  const total = log(f32(f32(1 + exp(down)) + exp(up)));
  const [left, right] = [points[edge - 1][n], points[edge][n]];
  const saved = f32(inBits(f32(total - (edge === 1 ? 0 : up))) - inBits(f32(total - (edge === 1 ? down : 0))));
  const moved = borderShift(saved, Math.max(f32(right - left), NARROWEST));
  return Math.min(Math.max(f32(f32(left + right) / 2 + moved), left), right);
}

const oddsOf = (index) => (index ? (index - 1) / 2 - 10 : -Infinity);
