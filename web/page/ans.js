/**
 * The ANS stack of constriction: words of 32 bits, a state of 64, probabilities in units of 2^-24. The
 * state is kept in two halves; products of 64 bits are made of exact float64 ones.
 */
import { HvcError } from "./errors.js";

const TOTAL = 2 ** 24;
const WORD = 2 ** 32;
const ESCAPE_BITS = 16;
const MAX_ESCAPE = 24;

export class Stack {
  /**
   * @param {Uint32Array} words Most recent first.
   * @param {object|null} place Where a stack of the first of these words stood, to go on from there.
   * @throws {HvcError} No stack has these words.
   */
  constructor(words, place = null) {
    if (words.length && !words[0]) throw new HvcError("the coded data cannot be a stack");
    this.words = words;
    const start = { at: Math.min(words.length, 1), high: 0, low: words[0] ?? 0, given: [] };
    Object.assign(this, place ?? start);
    this.given = [...this.given]; // words that were pushed, the last one on top
    this.refill();
  }

  get place() {
    const { at, high, low, given } = this;
    return { at, high, low, given: [...given] };
  }

  get empty() {
    return this.at === this.words.length && !this.given.length && !this.high && !this.low;
  }

  refill() {
    if (this.high || (!this.given.length && this.at === this.words.length)) return;
    this.high = this.low;
    this.low = this.given.length ? this.given.pop() : this.words[this.at++];
  }

  /** Go on behind an entry of a distribution that begins at `start`. */
  step(start, probability) {
    // (state >> 24) * probability + (state mod 2^24 - start)
    const shifted = this.high * 256 + Math.floor(this.low / TOTAL);
    const upper = Math.floor(shifted / 2 ** 20);
    const lower = (shifted - upper * 2 ** 20) * probability + ((this.low % TOTAL) - start);
    const product = upper * probability;
    const carry = Math.floor(product / 2 ** 12);
    const low = (product - carry * 2 ** 12) * 2 ** 20 + lower;
    const over = Math.floor(low / WORD);
    this.high = carry + over;
    this.low = low - over * WORD;
    this.refill();
  }

  /** Push an entry of a distribution that begins at `start`: the inverse of `step`. */
  push(start, probability) {
    let state = (BigInt(this.high) << 32n) + BigInt(this.low);
    const [first, count] = [BigInt(start), BigInt(probability)];
    if (state >> 40n >= count) {
      this.given.push(this.low);
      state >>= 32n;
    }
    state = ((state / count) << 24n) + (state % count) + first;
    this.high = Number(state >> 32n);
    this.low = Number(state & 0xffffffffn);
  }

  /**
   * The next entry of a table.
   *
   * @param {Int32Array} sums Where each entry begins, in 2^-24, and then 2^24.
   */
  entry(sums) {
    const at = this.low % TOTAL;
    let first = 0;
    let last = sums.length - 1;
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (sums[middle] <= at) first = middle;
      else last = middle;
    }
    this.step(sums[first], sums[first + 1] - sums[first]);
    return first;
  }

  /** The next of `size` equally likely numbers; what cannot be shared out goes to the last. */
  uniform(size) {
    if (size === 1) return 0;
    const share = Math.floor(TOTAL / size);
    const found = Math.min(Math.floor((this.low % TOTAL) / share), size - 1);
    const start = found * share;
    this.step(start, found === size - 1 ? TOTAL - start : share);
    return found;
  }

  /** A number that is beyond its table's reach. */
  escaped(reach) {
    const negative = this.uniform(2);
    const length = this.uniform(MAX_ESCAPE);
    let beyond = 2 ** length;
    for (let place = Math.floor((length - 1) / ESCAPE_BITS) * ESCAPE_BITS; place >= 0; place -= ESCAPE_BITS) {
      beyond += this.uniform(2 ** Math.min(ESCAPE_BITS, length - place)) * 2 ** place;
    }
    return negative ? -(reach + beyond) : reach + beyond;
  }
}
