/**
 * Signs that nothing is sent for (docs/format.md, "Signs"): the first symbol of a group that is not zero has the
 * parity of the group for a sign, and the bit that stood in its place goes back onto the stack.
 */
import { tableOf } from "./tables.js";

const TOTAL = 2 ** 24;
const GROUP = 4096;
const MOST = 512;

/** Sets signs of a pass, as far as groups end in its first `last` rows, and pushes the bits back. */
export function giveSignsBack(stack, tables, symbols, { level, shape }, [pass, rows, columns], last) {
  const area = rows * columns;
  const bits = [];
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
      const sums = tables.sums(table);
      const zero = sums[tables.reaches[table] + 1] - sums[tables.reaches[table]];
      counted += Math.min(Math.floor((TOTAL - zero) / 8192), MOST);
      if (counted < GROUP) continue;
      counted -= GROUP;
      if (first >= 0) {
        bits.push(symbols[first] < 0 ? 1 : 0);
        symbols[first] = odd ? -Math.abs(symbols[first]) : Math.abs(symbols[first]);
      }
      first = -1;
      odd = 0;
    }
  }
  for (const bit of bits.reverse()) stack.push(bit * (TOTAL / 2), TOTAL / 2);
}
