/**
 * Side information with bits-back (docs/format.md, "Side information"): symbols of a region of a channel, and
 * of a block of places, share a shift of their scales: latents that are popped before them and pushed back
 * under their posteriors after them.
 */
import { signsOfLadder } from "./container.js";
import { exp2, f32, log2, rint } from "./exact.js";
import { colourPlanes } from "./ladder.js";
import { eighthOf, giveSignsBack, giveSignsOfParitiesBack } from "./signs.js";
import { ladderSymbols, pop, shiftOf, summed, tableOf } from "./tables.js";

const TOTAL = 2 ** 24;
const OF_BLOCKS = {
  shifts: [-16, -12, -8, -4, 0, 4, 8, 12, 16],
  priors: [
    [2, 3, 5, 47, 174, 18, 5, 1, 1],
    [5, 8, 29, 87, 95, 24, 5, 2, 1],
    [7, 12, 25, 43, 66, 59, 31, 10, 3],
  ],
};
const OF_CHANNELS = {
  shifts: [-8, -6, -4, -2, 0, 2, 4, 6, 8],
  priors: [
    [1, 1, 7, 52, 152, 37, 4, 1, 1],
    [26, 17, 38, 58, 64, 28, 14, 7, 4],
  ],
};
const REGIONS = [16, 2 ** 24]; // sides; the latter is the whole channel
const REGION_MODES = 1 + REGIONS.length * OF_CHANNELS.priors.length;
const BLOCKS = [
  { side: 1, apart: false },
  { side: 1, apart: true },
  { side: 2, apart: true },
  { side: 4, apart: false },
  { side: 4, apart: true },
];
/** By number: latents of blocks, their prior, and how many eighths of the rows have latents and say signs. */
const MODES = [{ eighths: 8 }, ...modesOf(BLOCKS, 8), ...modesOf(BLOCKS.slice(0, 2), 6)];
MODES.push({ eighths: 6 }, { eighths: 0 }, ...modesOf(BLOCKS.slice(0, 2), 7), { eighths: 7 });
const MODE_COUNTS = [22, 24, MODES.length]; // in files without signs, of coder version 1 and 2
const SHAPES = 8;
const HIGHEST = 184;
const MOST = 255;

function modesOf(blocks, eighths) {
  return blocks.flatMap((block) => OF_BLOCKS.priors.map((_, prior) => ({ block, prior, eighths })));
}

/** What symbols cost under a model's tables, in 1/64 bits. */
export class Costs {
  constructor(tables) {
    this.tables = tables;
    this.floors = Array.from({ length: SHAPES }, (_, shape) => {
      let level = 0;
      while (tables.silent[level * SHAPES + shape]) level++;
      return level;
    });
    this.found = new Int32Array((HIGHEST + 1) * SHAPES * (MOST + 1)).fill(-1);
  }

  /** The level whose tables code a level. */
  clamped(level, shape) {
    return Math.min(Math.max(level, this.floors[shape]), HIGHEST);
  }

  of(symbol, level, shape) {
    const key = (level * SHAPES + shape) * (MOST + 1) + Math.min(Math.abs(symbol), MOST);
    if (this.found[key] < 0) this.found[key] = this.computed(key % (MOST + 1), level, shape);
    return this.found[key];
  }

  computed(size, level, shape) {
    const low = shiftOf(level);
    const table = tableOf(level, shape);
    const reach = this.tables.reaches[table];
    const sums = this.tables.sums(table);
    const entry = (size + ((1 << low) >> 1)) >> low;
    const at = entry <= reach ? reach + entry : 2 * reach + 1;
    const bits = log2(f32(TOTAL / (sums[at + 1] - sums[at])));
    return rint(f32(f32(bits + low) * 64));
  }
}

/**
 * Symbols of a pass of the ladder.
 *
 * @param {Stack} stack
 * @param {Costs} costs
 * @param {object} prior `level` and `shape` of each symbol.
 * @param {Array} grid The pass (its layer and channels), and rows and columns of it, packed.
 * @param {object} header
 * @returns {Int32Array}
 */
export function sharingSymbols(stack, costs, { level, shape }, grid, header) {
  const [pass, rows, columns] = grid;
  const { tables } = costs;
  const { ofChannels } = header;
  const signs = signsOfLadder(header);
  const coded = [];
  level.forEach((l, at) => {
    if (!tables.silent[tableOf(l, shape[at])]) coded.push(at);
  });
  if (!coded.length) return new Int32Array(level.length);
  const modeOf = (count) => {
    if (!signs) return stack.uniform(count);
    return stack.uniform(2) ? 1 + stack.uniform(count - 1) : 0;
  };
  const region = ofChannels ? modeOf(REGION_MODES) : 0;
  const mode = modeOf(MODE_COUNTS[signs]);
  if (!mode && !region && !signs) return ladderSymbols(stack, tables, { level, shape });
  const { block, prior, eighths } = MODES[mode];
  const rowOf = (at) => Math.floor(at / columns) % rows;
  const channelOf = (at) => Math.floor(at / (rows * columns));
  const last = Math.floor((rows * eighths) / 8);
  const inside = (at) => (signs > 1 ? eighthOf(rowOf(at)) < eighths : rowOf(at) < last);
  const own = coded.filter(inside);
  const rest = coded.filter((at) => !inside(at));
  const levels = Int16Array.from(level);
  const drawn = [];
  const draw = (kind, prior, numberOf, side) => {
    const keyOf = (at) =>
      (numberOf(at) * rows + Math.floor(rowOf(at) / side)) * columns + Math.floor((at % columns) / side);
    drawn.push(new Sharing(stack, kind, kind.priors[prior], grouped(own, keyOf), levels));
  };
  if (region) {
    const count = OF_CHANNELS.priors.length;
    draw(OF_CHANNELS, (region - 1) % count, channelOf, REGIONS[Math.floor((region - 1) / count)]);
  }
  if (block) {
    const all = colourPlanes(pass.layer);
    const planes = pass.channels.map((channel) => all[channel]);
    const colourOf = (at) => (block.apart && planes[channelOf(at)] ? 1 : 0);
    draw(OF_BLOCKS, prior, colourOf, block.side);
  }
  const symbols = new Int32Array(level.length);
  const take = (places) => {
    const here = places.map((at) => costs.clamped(levels[at], shape[at]));
    const table = Int16Array.from(places, (at, n) => tableOf(here[n], shape[at]));
    const shift = Uint8Array.from(here, shiftOf);
    pop(stack, tables, table, shift).forEach((symbol, n) => (symbols[places[n]] = symbol));
  };
  take(own);
  for (const sharing of drawn.reverse()) sharing.giveBack(stack, costs, symbols, levels, shape);
  if (signs === 1) giveSignsOfParitiesBack(stack, tables, symbols, { level, shape }, grid, last);
  else if (signs) giveSignsBack(stack, tables, symbols, { level, shape }, grid, eighths);
  take(rest);
  return symbols;
}

/** Lists of places by key, in the order of keys. */
function grouped(places, keyOf) {
  const groups = new Map();
  for (const at of places) {
    const key = keyOf(at);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(at);
  }
  return [...groups.keys()].sort((a, b) => a - b).map((key) => groups.get(key));
}

/** Latents of a pass, and the places that share them. Takes them off the stack, and moves the levels. */
class Sharing {
  constructor(stack, { shifts }, prior, groups, levels) {
    Object.assign(this, { shifts, prior, groups });
    const sums = summed(prior.map((count) => count * (TOTAL / 256)));
    this.latents = groups.map(() => stack.entry(sums));
    this.move(levels, 1);
  }

  move(levels, sign) {
    this.groups.forEach((places, n) => {
      const shift = sign * this.shifts[this.latents[n]];
      for (const at of places) levels[at] += shift;
    });
  }

  /** Moves the levels back, and pushes the latents under their posteriors. */
  giveBack(stack, costs, symbols, levels, shape) {
    this.move(levels, -1);
    for (let n = this.groups.length - 1; n >= 0; n--) {
      const sums = summed(this.posterior(this.groups[n], costs, symbols, levels, shape));
      const latent = this.latents[n];
      stack.push(sums[latent], sums[latent + 1] - sums[latent]);
    }
  }

  /** Counts of the latents of these places. */
  posterior(places, costs, symbols, levels, shape) {
    const totals = this.prior.map((count, latent) => {
      let total = rint(f32(f32(8 - log2(count)) * 64));
      for (const at of places) {
        total += costs.of(symbols[at], costs.clamped(levels[at] + this.shifts[latent], shape[at]), shape[at]);
      }
      return total;
    });
    const least = Math.min(...totals);
    const weights = totals.map((total) => exp2(f32((least - total) / 64)));
    const whole = weights.reduce((sum, weight) => f32(sum + weight), 0);
    const share = f32((TOTAL - totals.length) / whole);
    const counts = weights.map((weight) => Math.floor(f32(weight * share)));
    const missing = TOTAL - totals.length - counts.reduce((sum, count) => sum + count, 0);
    counts[weights.indexOf(Math.max(...weights))] += missing;
    return counts.map((count) => count + 1);
  }
}
