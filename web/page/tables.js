/** Symbols off the stack, pass by pass, under the tables that their priors pick. */
import { HvcError } from "./errors.js";

const SCALES = 89; // levels that tables exist for; the highest one is 8
const SHAPES = 8;
export const PART_TABLES = SCALES * SHAPES; // where those of the parts of windows begin
export const ODDS = 42; // of a part, as they are coded
const SILENT = (1 - 2 ** -10) * 2 ** 24;
const PART_SILENT = (1 - 2 ** -16) * 2 ** 24;
const LARGEST_SYMBOL = 2 ** 31 - 1;

/** Where each entry of a table begins, and then the end. */
export function summed(counts) {
  const sums = new Int32Array(counts.length + 1);
  for (let n = 0; n < counts.length; n++) sums[n + 1] = sums[n] + counts[n];
  return sums;
}

/** The tables of a model; for what `pop` needs see there. */
export class Tables {
  constructor(counts, reaches) {
    this.reaches = reaches;
    this.silent = new Uint8Array(reaches.length);
    this.all = [];
    let at = 0;
    reaches.forEach((reach, n) => {
      const own = counts.subarray(at, (at += 2 * reach + 2));
      this.silent[n] = own[reach] > (n < PART_TABLES ? SILENT : PART_SILENT);
      this.all.push(summed(own));
    });
  }

  sums(table) {
    return this.all[table];
  }
}

/** Low bits that a level codes apart. */
export const shiftOf = (level) => (level < SCALES ? 0 : Math.ceil((level - SCALES + 1) / 8));

export const tableOf = (level, shape) => (level - 8 * shiftOf(level)) * SHAPES + shape;

/** Symbols of a pass of the ladder, from the levels and shapes of its priors. */
export function ladderSymbols(stack, tables, { level, shape }) {
  const table = new Int16Array(level.length);
  const shift = new Uint8Array(level.length);
  for (let at = 0; at < table.length; at++) {
    shift[at] = shiftOf(level[at]);
    table[at] = tableOf(level[at], shape[at]);
  }
  return pop(stack, tables, table, shift);
}

/**
 * The symbols of one pass.
 *
 * @param {Stack} stack
 * @param {object} tables `reaches` and `silent` by table, and `sums(table)`.
 * @param {Int16Array} table Of each symbol.
 * @param {Uint8Array} shift Low bits of each symbol that are coded apart.
 * @returns {Int32Array}
 * @throws {HvcError} Symbols that cannot be.
 */
export function pop(stack, tables, table, shift) {
  const order = sorted(table, tables.silent);
  const numbers = new Float64Array(order.length);
  const escapes = [];
  let last = -1;
  let [sums, reach] = [null, 0];
  let highest = 0;
  order.forEach((at, n) => {
    if (table[at] !== last) {
      last = table[at];
      [sums, reach] = [tables.sums(last), tables.reaches[last]];
    }
    const entry = stack.entry(sums);
    if (entry > 2 * reach) escapes.push(n);
    numbers[n] = entry - reach;
    if (shift[at] > highest) highest = shift[at];
  });
  const lows = new Int32Array(order.length);
  for (let width = 1; width <= highest; width++) {
    order.forEach((at, n) => {
      if (shift[at] === width) lows[n] = stack.uniform(2 ** width) - 2 ** (width - 1);
    });
  }
  for (const n of escapes) numbers[n] = stack.escaped(tables.reaches[table[order[n]]]);
  const symbols = new Int32Array(table.length);
  order.forEach((at, n) => {
    const symbol = numbers[n] * 2 ** shift[at] + lows[n];
    if (Math.abs(symbol) > LARGEST_SYMBOL) throw new HvcError("the coded data do not fit the model");
    symbols[at] = symbol;
  });
  return symbols;
}

/** Places of the symbols that are coded, by table, and within a table as they come. */
function sorted(table, silent) {
  const starts = new Int32Array(silent.length + 1);
  for (const t of table) if (!silent[t]) starts[t + 1]++;
  for (let t = 0; t < silent.length; t++) starts[t + 1] += starts[t];
  const order = new Int32Array(starts[silent.length]);
  table.forEach((t, at) => {
    if (!silent[t]) order[starts[t]++] = at;
  });
  return order;
}
