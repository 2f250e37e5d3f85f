/**
 * Signs that nothing is sent for (docs/format.md, "Signs"): the syndrome of a slice of a pass's symbols says them, and
 * the bits that stood in their place go back onto the stack.
 */
import { tableOf } from "./tables.js";

const TOTAL = 2 ** 24;
const GROUP = 4096;
const EIGHTHS = [0, 4, 1, 6, 2, 5, 3, 7]; // of the rows, by their number modulo 8
const PATTERNS = [0b1001, 0b1011, 0b1101, 0b1111];
const LANE = 32;

/** In which eighth of its rows a row of a pass is. */
export const eighthOf = (row) => EIGHTHS[row % 8];

/** By table, what a symbol counts, in 1/4096 of a group. */
function weights(tables, most) {
  const found = new Map();
  return (table) => {
    if (!found.has(table)) {
      const sums = tables.sums(table);
      const zero = sums[tables.reaches[table] + 1] - sums[tables.reaches[table]];
      found.set(table, Math.min(Math.floor((TOTAL - zero) / 8192), most));
    }
    return found.get(table);
  };
}

function set(stack, symbols, signs) {
  const bits = signs.map(([at]) => (symbols[at] < 0 ? 1 : 0));
  for (const [at, negative] of signs) symbols[at] = negative ? -Math.abs(symbols[at]) : Math.abs(symbols[at]);
  for (const bit of bits.reverse()) stack.push(bit * (TOTAL / 2), TOTAL / 2);
}

/** Sets signs of a pass, as far as `eighths` of its rows say, and pushes the bits back. */
export function giveSignsBack(stack, tables, symbols, { level, shape }, [pass, rows, columns], eighths) {
  const area = rows * columns;
  const countOf = weights(tables, 1024);
  const slices = Array.from({ length: 5 }, () => ({ signs: [], syndrome: [], groups: 0, counted: 0, size: 0 }));
  const order = Array.from({ length: rows }, (_, row) => row);
  order.sort((a, b) => eighthOf(a) - eighthOf(b) || a - b);
  let number = 0;
  for (const row of order) {
    if (eighthOf(row) >= eighths) break;
    for (let column = 0; column < columns; column++) {
      for (let channel = 0; channel < pass.channels.length; channel++) {
        const at = channel * area + row * columns + column;
        const table = tableOf(level[at], shape[at]);
        if (tables.silent[table]) continue;
        const zeros = number % 16 ? Math.log2(number & -number) : 4;
        const slice = slices[4 - zeros];
        if (symbols[at]) slice.signs.push(at);
        const pattern = symbols[at] & 1 ? PATTERNS[slice.size % 4] : 0;
        for (let later = 0; later < 4 && (slice.groups % LANE) + later < LANE; later++) {
          slice.syndrome[slice.groups + later] ^= (pattern >> later) & 1;
        }
        slice.size++;
        slice.counted += countOf(table);
        if (slice.counted >= GROUP) {
          slice.counted -= GROUP;
          slice.groups++;
        }
        number++;
      }
    }
  }
  const said = slices.slice(1).flatMap(({ syndrome, groups }, n) =>
    slices[n].signs.slice(0, groups).map((at, k) => [at, syndrome[k]]),
  );
  set(stack, symbols, said);
}

/** The same in files of coder version 1, where the first `last` rows say signs: a parity for each group. */
export function giveSignsOfParitiesBack(stack, tables, symbols, { level, shape }, [pass, rows, columns], last) {
  const area = rows * columns;
  const countOf = weights(tables, 512);
  const said = [];
  let counted = 0;
  let first = -1;
  let odd = 0;
  for (let place = 0; place < last * columns; place++) {
    for (let channel = 0; channel < pass.channels.length; channel++) {
      const at = channel * area + place;
      const table = tableOf(level[at], shape[at]);
      if (tables.silent[table]) continue;
      if (first < 0 && symbols[at]) first = at;
      odd ^= symbols[at] & 1;
      counted += countOf(table);
      if (counted < GROUP) continue;
      counted -= GROUP;
      if (first >= 0) said.push([first, odd]);
      first = -1;
      odd = 0;
    }
  }
  set(stack, symbols, said);
}
