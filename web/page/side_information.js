/**
 * Side information with bits-back (docs/format.md, "Side information"): symbols of a block share a shift of
 * their scales, a latent that is popped before them and pushed back under its posterior after them.
 */
import { exp2, f32, log2, rint } from "./exact.js";
import { colourPlanes } from "./ladder.js";
import { ladderSymbols, pop, shiftOf, summed, tableOf } from "./tables.js";

const TOTAL = 2 ** 24;
const LATENTS = 9;
const shiftOfLatent = (latent) => 4 * latent - 16;
const PRIORS = [
  [2, 3, 5, 47, 174, 18, 5, 1, 1],
  [5, 8, 29, 87, 95, 24, 5, 2, 1],
  [7, 12, 25, 43, 66, 59, 31, 10, 3],
];
const BLOCKS = [
  { side: 1, apart: false, whole: true },
  { side: 1, apart: true, whole: true },
  { side: 2, apart: true, whole: true },
  { side: 4, apart: false, whole: true },
  { side: 4, apart: true, whole: true },
  { side: 1, apart: false, whole: false },
  { side: 1, apart: true, whole: false },
];
const MODES = 1 + BLOCKS.length * PRIORS.length;
const SHAPES = 8;
const HIGHEST = 184;
const MOST = 255;

/** What symbols cost under a model's tables, in 1/64 bits. */
export class Costs {
  constructor(tables) {
    this.tables = tables;
    this.floors = Array.from({ length: SHAPES }, (_, shape) => {
      let level = 0;
      while (tables.silent[level * SHAPES + shape]) level++;
      return level;
    });
    this.found = new Map();
  }

  /** The level that a symbol is coded at in a block of this latent. */
  moved(level, shape, latent) {
    return Math.min(Math.max(level + shiftOfLatent(latent), this.floors[shape]), HIGHEST);
  }

  of(symbol, level, shape) {
    const key = (level * SHAPES + shape) * (MOST + 1) + Math.min(Math.abs(symbol), MOST);
    if (!this.found.has(key)) this.found.set(key, this.computed(key % (MOST + 1), level, shape));
    return this.found.get(key);
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
 * @param {number[]} grid Layer of the ladder, and rows and columns of the packed pass.
 * @returns {Int32Array}
 */
export function sharingSymbols(stack, costs, { level, shape }, [layer, rows, columns]) {
  const { tables } = costs;
  const coded = [];
  level.forEach((l, at) => {
    if (!tables.silent[tableOf(l, shape[at])]) coded.push(at);
  });
  if (!coded.length) return new Int32Array(level.length);
  const mode = stack.uniform(MODES);
  if (!mode) return ladderSymbols(stack, tables, { level, shape });
  const { side, apart, whole } = BLOCKS[Math.floor((mode - 1) / PRIORS.length)];
  const prior = PRIORS[(mode - 1) % PRIORS.length];
  const last = whole ? rows : Math.floor((rows * 3) / 4);
  const planes = colourPlanes(layer);
  const own = [];
  const rest = [];
  const blocks = new Map();
  for (const at of coded) {
    const row = Math.floor(at / columns) % rows;
    if (row >= last) {
      rest.push(at);
      continue;
    }
    own.push(at);
    const colour = apart && planes[Math.floor(at / (rows * columns))] ? 1 : 0;
    const key = (colour * rows + Math.floor(row / side)) * columns + Math.floor((at % columns) / side);
    if (!blocks.has(key)) blocks.set(key, { latent: 0, symbols: [] });
    blocks.get(key).symbols.push(at);
  }
  const inOrder = [...blocks.keys()].sort((a, b) => a - b).map((key) => blocks.get(key));
  const sums = summed(prior.map((count) => count * (TOTAL / 256)));
  const moved = new Int16Array(level.length);
  for (const block of inOrder) {
    block.latent = stack.entry(sums);
    for (const at of block.symbols) moved[at] = costs.moved(level[at], shape[at], block.latent);
  }
  const symbols = new Int32Array(level.length);
  const take = (places, levels) => {
    const table = Int16Array.from(places, (at) => tableOf(levels[at], shape[at]));
    const shift = Uint8Array.from(places, (at) => shiftOf(levels[at]));
    pop(stack, tables, table, shift).forEach((symbol, n) => (symbols[places[n]] = symbol));
  };
  take(own, moved);
  for (const block of inOrder.reverse()) {
    const after = summed(posterior(block.symbols, symbols, level, shape, prior, costs));
    stack.push(after[block.latent], after[block.latent + 1] - after[block.latent]);
  }
  take(rest, level);
  return symbols;
}

/** Counts of the latents of a block of these places. */
function posterior(places, symbols, level, shape, prior, costs) {
  const totals = prior.map((count, latent) => {
    let total = rint(f32(f32(8 - log2(count)) * 64));
    for (const at of places) total += costs.of(symbols[at], costs.moved(level[at], shape[at], latent), shape[at]);
    return total;
  });
  const least = Math.min(...totals);
  const weights = totals.map((total) => exp2(f32((least - total) / 64)));
  const whole = weights.reduce((sum, weight) => f32(sum + weight), 0);
  const share = f32((TOTAL - LATENTS) / whole);
  const counts = weights.map((weight) => Math.floor(f32(weight * share)));
  const missing = TOTAL - LATENTS - counts.reduce((sum, count) => sum + count, 0);
  counts[weights.indexOf(Math.max(...weights))] += missing;
  return counts.map((count) => count + 1);
}
