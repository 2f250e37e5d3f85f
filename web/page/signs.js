/**
 * Signs that nothing is sent for (docs/format.md, "Signs"): the syndrome of a slice of a pass's symbols says them, and
 * the bits that stood in their place go back onto the stack.
 */
import { ODDS, PART_TABLES, pop, tableOf } from "./tables.js";

const TOTAL = 2 ** 24;
const GROUP = 4096;
const EIGHTHS = [0, 4, 1, 6, 2, 5, 3, 7]; // of the rows, by their number modulo 8
const PATTERNS = [0b1001, 0b1011, 0b1101, 0b1111];
const LANE = 32;

/** In which eighth of its rows a row of a pass is. */
export const eighthOf = (row) => EIGHTHS[row % 8];

const RUN = 64;
const MODES = [8, 7, 6, 0]; // of passes of the last level of refinement: how many eighths say signs
const MOST = 1024;
const MOST_OF_PARTS = 512;

/** What a symbol of a table counts, in 1/4096 of a group. */
function weight(tables, table, most) {
  const sums = tables.sums(table);
  const zero = sums[tables.reaches[table] + 1] - sums[tables.reaches[table]];
  return Math.min(Math.floor((TOTAL - zero) / 8192), most);
}

function set(stack, symbols, signs) {
  const bits = signs.map(([at]) => (symbols[at] < 0 ? 1 : 0));
  for (const [at, negative] of signs) symbols[at] = negative ? -Math.abs(symbols[at]) : Math.abs(symbols[at]);
  for (const bit of bits.reverse()) stack.push(bit * (TOTAL / 2), TOTAL / 2);
}

/** Sets signs from syndromes and pushes the bits back; `order` has places of coded symbols, `table` their tables. */
function setSigns(stack, tables, symbols, table, order) {
  const slices = Array.from({ length: 5 }, () => ({ signs: [], syndrome: [], groups: 0, counted: 0, size: 0 }));
  order.forEach((at, number) => {
    const zeros = number % 16 ? Math.log2(number & -number) : 4;
    const slice = slices[4 - zeros];
    const part = table[at] - PART_TABLES;
    if (symbols[at] && (part < 0 || Math.floor(part / ODDS) === part % ODDS)) slice.signs.push(at);
    const pattern = symbols[at] & 1 ? PATTERNS[slice.size % 4] : 0;
    for (let later = 0; later < 4 && (slice.groups % LANE) + later < LANE; later++) {
      slice.syndrome[slice.groups + later] ^= (pattern >> later) & 1;
    }
    slice.size++;
    slice.counted += weight(tables, table[at], part < 0 ? MOST : MOST_OF_PARTS);
    if (slice.counted >= GROUP) {
      slice.counted -= GROUP;
      slice.groups++;
    }
  });
  const said = slices.slice(1).flatMap(({ syndrome, groups }, n) =>
    slices[n].signs.slice(0, groups).map((at, k) => [at, syndrome[k]]),
  );
  set(stack, symbols, said);
}

/** Sets signs of a pass of the ladder, as far as `eighths` of its rows say, and pushes the bits back. */
export function giveSignsBack(stack, tables, symbols, { level, shape }, [pass, rows, columns], eighths) {
  const rising = Array.from({ length: rows }, (_, row) => row);
  rising.sort((a, b) => eighthOf(a) - eighthOf(b) || a - b);
  const table = Int16Array.from(level, (own, at) => tableOf(own, shape[at]));
  const order = [];
  for (const row of rising) {
    if (eighthOf(row) >= eighths) break;
    for (let column = 0; column < columns; column++) {
      for (let channel = 0; channel < pass.channels.length; channel++) {
        const at = (channel * rows + row) * columns + column;
        if (!tables.silent[table[at]]) order.push(at);
      }
    }
  }
  setSigns(stack, tables, symbols, table, order);
}

/** Symbols of a pass of the last level of refinement, which has signs; see `pop` in tables.js. */
export function popWithSigns(stack, tables, table, shift) {
  const eighths = MODES[stack.uniform(MODES.length)];
  const coded = [];
  table.forEach((own, at) => {
    if (!tables.silent[own]) coded.push(at);
  });
  const groups = Array.from({ length: 8 }, () => []);
  coded.forEach((at, n) => groups[eighthOf(Math.floor(n / RUN))].push(at));
  const symbols = new Int32Array(table.length);
  const take = (places) => {
    places.sort((a, b) => a - b);
    const [own, low] = [Int16Array.from(places, (at) => table[at]), Uint8Array.from(places, (at) => shift[at])];
    pop(stack, tables, own, low).forEach((symbol, n) => (symbols[places[n]] = symbol));
  };
  const inside = groups.slice(0, eighths).flat();
  take([...inside]);
  setSigns(stack, tables, symbols, table, inside);
  take(groups.slice(eighths).flat());
  return symbols;
}

/** The same in files of coder version 1, where the first `last` rows say signs: a parity for each group. */
export function giveSignsOfParitiesBack(stack, tables, symbols, { level, shape }, [pass, rows, columns], last) {
  const area = rows * columns;
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
      counted += weight(tables, table, 512);
      if (counted < GROUP) continue;
      counted -= GROUP;
      if (first >= 0) said.push([first, odd]);
      first = -1;
      odd = 0;
    }
  }
  set(stack, symbols, said);
}
