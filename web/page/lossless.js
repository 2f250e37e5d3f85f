/** The lossless layer (docs/format.md): the exact pixels of a tile, given its decoded picture. */
import { HvcError } from "./errors.js";
import { below, clamp, exp2, f32, log2, rint } from "./exact.js";
import { floats, tensor } from "./network.js";
import { pop, summed } from "./tables.js";

const UNIT = 16; // of decoded pixels and of means, per grey level
const MEAN_MAX = 255;
const LEVELS = 97;
const FRACTIONS = 9;
const SHAPES = 8;
const MAX_REACH = 510;
const FAR = f32(12.476649);
const TOTAL = 2 ** 24;
const SURPRISE_MAX = 6;
const SHARE_MAX = 255;
const POSITIONS = [[0, 0], [1, 1], [0, 1], [1, 0]]; // row and column of the pixel of each pass
const COLOURS = [1, 0, 2]; // in the order in which they are coded
const PAIRS = [[0, 1], [0, 2], [1, 2]];
// Of corrections: their scales are 2^-1 and 2^3.
const HEAD_TABLE = 32 * FRACTIONS * SHAPES + 7;
const SHARE_TABLE = 64 * FRACTIONS * SHAPES + 7;

const scaleOf = (level) => exp2(f32(level / 8 - 5));

/** Tables by scale, fraction of the mean and tail shape, made when first needed; for `pop`. */
export class LosslessTables {
  constructor({ ratios, weights }) {
    Object.assign(this, { ratios, weights });
    const count = LEVELS * FRACTIONS * SHAPES;
    this.silent = new Uint8Array(count);
    this.made = [];
    this.reaches = Array.from({ length: count }, (_, table) => {
      const scale = scaleOf(Math.floor(table / (FRACTIONS * SHAPES)));
      const far = f32(f32(scale * ratios[table % SHAPES]) * FAR);
      return clamp(Math.ceil(far), 1, MAX_REACH);
    });
  }

  sums(table) {
    return (this.made[table] ??= summed(this.counts(table)));
  }

  counts(table) {
    const shape = table % SHAPES;
    const fraction = Math.floor(table / SHAPES) % FRACTIONS;
    const scale = scaleOf(Math.floor(table / (FRACTIONS * SHAPES)));
    const reach = this.reaches[table];
    const share = (edge) => below(edge, scale, this.ratios[shape], this.weights[shape]);
    const edges = Array.from({ length: 2 * reach + 2 }, (_, n) => n - reach - 0.5 - fraction / UNIT);
    // On their own side of the mean probabilities are small, so their differences keep their digits.
    const under = edges.map((edge) => share(Math.min(edge, 0)));
    const over = edges.map((edge) => share(-Math.max(edge, 0)));
    const counts = new Int32Array(edges.length);
    for (let n = 0; n <= 2 * reach; n++) {
      let mass = f32(over[n] - over[n + 1]);
      if (edges[n + 1] <= 0) mass = f32(under[n + 1] - under[n]);
      else if (edges[n] < 0) mass = 1 - under[n] - over[n + 1];
      counts[n] = Math.max(rint(mass * TOTAL), 1);
    }
    counts[2 * reach + 1] = Math.max(rint((under[0] + over.at(-1)) * TOTAL), 1);
    counts[reach] += TOTAL - counts.reduce((sum, count) => sum + count);
    return counts;
  }

  /** A few numbers, under one table each. */
  pop(stack, tables) {
    return pop(stack, this, Int16Array.from(tables), new Uint8Array(tables.length));
  }
}

/**
 * @param {Int16Array} shown What is decoded without this layer, in sixteenths; 3 planes.
 * @param {number[]} steps That coefficients are known to.
 * @returns {Promise<Uint8Array>} 3 planes.
 */
export async function losslessPixels(network, tables, stack, shown, height, width, steps, colour) {
  const rows = Math.ceil(height / 2);
  const columns = Math.ceil(width / 2);
  const pixels = new Uint8Array(shown.length);
  const inputs = {
    sixteenths: tensor("int16", shown, [1, 3, height, width]),
    steps: tensor("int32", Int32Array.from(steps), [steps.length]),
  };
  const errors = []; // of every pass and colour, 0 where there is no pixel
  for (let p = 0; p < POSITIONS.length; p++) {
    const found = await network.run(`lossless-${p}`, inputs);
    const place = new Place(p, height, width, rows, columns);
    const differences = floats(new Float32Array(3 * rows * columns), [1, 3, rows, columns]);
    errors.push([]);
    decodePass(place, found, { tables, stack, shown, errors, pixels, grey: colour === "grey" }, differences.data);
    Object.assign(inputs, { trunk: found.trunk_out, differences });
  }
  return pixels;
}

/** The pixels of a pass: at which of the 2x2 positions, and where in the picture. */
class Place {
  constructor(pass, height, width, rows, columns) {
    const [i, j] = POSITIONS[pass];
    const inside = Math.ceil((height - i) / 2) * Math.ceil((width - j) / 2);
    Object.assign(this, { i, j, rows, columns, at: new Int32Array(inside), pixel: new Int32Array(inside) });
    let n = 0;
    for (let row = 0; 2 * row + i < height; row++) {
      for (let column = 0; 2 * column + j < width; column++, n++) {
        this.at[n] = row * columns + column;
        this.pixel[n] = (2 * row + i) * width + 2 * column + j;
      }
    }
  }

  /** Errors that are known next to the pixels of the pass. */
  neighbours(errors) {
    const [earlier, own] = [errors.slice(0, -1), errors.at(-1)];
    const found = [];
    earlier.forEach((planes, pass) => {
      for (let a = -1; a <= 1; a++) {
        for (let b = -1; b <= 1; b++) {
          const [down, right] = [2 * a + POSITIONS[pass][0] - this.i, 2 * b + POSITIONS[pass][1] - this.j];
          if (Math.max(Math.abs(down), Math.abs(right)) <= 2) found.push(this.moved(planes[own.length], a, b));
        }
      }
    });
    return [...found, ...own.map((plane) => this.moved(plane, 0, 0))];
  }

  /** A plane at the positions of the pass, moved. */
  moved(plane, down, right) {
    const { rows, columns, at } = this;
    const found = new Float32Array(at.length);
    for (let n = 0; n < at.length; n++) {
      const row = Math.floor(at[n] / columns) + down;
      const column = (at[n] % columns) + right;
      if (row >= 0 && column >= 0 && row < rows && column < columns) found[n] = plane[row * columns + column];
    }
    return found;
  }
}

/** Decode the three colours of a pass, one after the other. */
function decodePass(place, found, { tables, stack, shown, errors, pixels, grey }, differences) {
  const { at, pixel } = place;
  const size = place.rows * place.columns;
  const whole = shown.length / 3;
  const planesOf = (name) => [0, 1, 2].map((k) => found[name].data.subarray(k * size, (k + 1) * size));
  const [mean, scale, shape, share, surprise] = ["mean", "scale", "shape", "share", "surprise"].map(planesOf);
  const own = errors.at(-1);
  const surprises = [];
  for (let k = 0; k < 3; k++) {
    const [means, levels] = [new Int16Array(at.length), new Uint8Array(at.length)];
    for (let n = 0; n < at.length; n++) {
      let centre = mean[k][at[n]];
      let width = scale[k][at[n]];
      for (let pair = 0; pair < PAIRS.length; pair++) {
        if (PAIRS[pair][1] !== k) continue;
        const source = PAIRS[pair][0];
        centre = f32(centre + f32(share[pair][at[n]] * own[source][at[n]]));
        width = f32(width + f32(surprise[pair][at[n]] * surprises[source][at[n]]));
      }
      means[n] = rint(clamp(centre, -MEAN_MAX, MEAN_MAX) * UNIT);
      levels[n] = rint(f32(clamp(width, -5, 7) + 5) * 8);
    }
    const { centres, octaves } = corrected(means, tables, stack, place.neighbours(errors));
    const table = new Int16Array(at.length);
    for (let n = 0; n < at.length; n++) {
      const rest = centres[n] - UNIT * wholeOf(centres[n]);
      const level = clamp(levels[n] + octaves, 0, LEVELS - 1);
      table[n] = (level * FRACTIONS + Math.abs(rest)) * SHAPES + shape[k][at[n]];
    }
    const symbols = pop(stack, tables, table, new Uint8Array(table.length));
    const [error, news] = [new Float32Array(size), new Float32Array(size)];
    for (let n = 0; n < at.length; n++) {
      const wholes = wholeOf(centres[n]);
      const difference = (centres[n] < UNIT * wholes ? -symbols[n] : symbols[n]) + wholes;
      const value = wholeOf(shown[COLOURS[k] * whole + pixel[n]]) + difference;
      if (value < 0 || value > 255) refuse();
      for (let other = grey ? 0 : k; other < (grey ? 3 : k + 1); other++) {
        const place = COLOURS[other] * whole + pixel[n];
        pixels[place] = value;
        differences[other * size + at[n]] = value - wholeOf(shown[place]);
      }
      error[at[n]] = difference - means[n] / UNIT;
      const far = f32(Math.abs(error[at[n]]) / scaleOf(levels[n]));
      news[at[n]] = Math.min(log2(f32(1 + far)), SURPRISE_MAX);
    }
    own.push(error);
    surprises.push(news);
    if (grey) break;
  }
}

/** Means, and what is added to the levels of scales, after the correction that the stack has. */
function corrected(means, tables, stack, near) {
  const [octaves, shared] = tables.pop(stack, [HEAD_TABLE, HEAD_TABLE]);
  const shares = shared ? tables.pop(stack, near.map(() => SHARE_TABLE)) : [];
  if (Math.abs(octaves) > LEVELS || shares.some((share) => Math.abs(share) > SHARE_MAX)) refuse();
  const centres = means.slice();
  if (shares.length) {
    for (let n = 0; n < means.length; n++) {
      let shift = 0;
      for (let s = 0; s < shares.length; s++) shift = f32(shift + f32((shares[s] / 64) * near[s][n]));
      centres[n] = clamp(means[n] + rint(shift * UNIT), -MEAN_MAX * UNIT, MEAN_MAX * UNIT);
    }
  }
  return { centres, octaves };
}

/** The grey level that sixteenths are nearest to. */
const wholeOf = (sixteenths) => (sixteenths + UNIT / 2) >> 4;

function refuse() {
  throw new HvcError("the coded data do not fit the model");
}
