/**
 * Restoration (docs/format.md): the filter of the picture that the last layer ends in. Whole numbers, which
 * JavaScript's numbers hold exactly.
 */
import { HvcError } from "./errors.js";

const UNIT = 16; // of decoded pixels, per grey level
const COMPONENTS = [[1, 1, 1], [1, -1, 0], [1, 1, -2]];
const BACK = [[2, 3, 1], [2, -3, 1], [2, 0, -2]]; // 6 times the inverse
const SIXTH = 6;
const NEAR = [[0, 1], [1, -1], [1, 0], [1, 1], [0, 2], [2, 0]];
const FAR = [...NEAR, [0, 3], [1, -2], [1, 2], [2, -1], [2, 1], [3, 0]];
const UNITS = [64, 128, 256, 512];
const FINEST = 512;
const REACH = 3;
const MOST = 685; // sum of the sizes of a component's weights
const LIMITS = 24;
const WORD = 4;

/** What a component is corrected by: component, offset, and whether differences are clipped. */
const INPUTS = COMPONENTS.map((_, own) => [
  ...(own ? [0, 1, 2].flatMap((c) => NEAR.map((d) => [c, d, false])) : FAR.map((d) => [0, d, false])),
  ...NEAR.map((d) => [own, d, true]),
]);

/**
 * The words of the segment that ends in a restoration.
 *
 * @param {Uint8Array} words
 * @returns {{words: Uint8Array, components: (object|null)[]}} Those before it; and per component the limit
 *   of clipped differences, the unit of weights, and the weights of its inputs, or null.
 * @throws {HvcError} The segment does not end in one.
 */
export function split(words) {
  const size = words.length ? WORD * words[words.length - 1] : 0;
  if (!size || size > words.length) throw damaged();
  const own = words.subarray(words.length - size, words.length - 1);
  let at = 0;
  const bit = () => {
    if (at >= 8 * own.length) throw damaged();
    return (own[at >> 3] >> (7 - (at++ & 7))) & 1;
  };
  const number = (count) => {
    let value = 0;
    for (let n = 0; n < count; n++) value = 2 * value + bit();
    return value;
  };
  const ones = () => {
    let count = 0;
    while (bit()) count++;
    return count;
  };
  const components = INPUTS.map((inputs) => {
    if (!bit()) return null;
    const [limit, unit, rice] = [5, 2, 3].map(number);
    const weights = inputs.map(() => {
      const folded = ones() * 2 ** rice + number(rice);
      return folded % 2 ? -(folded + 1) / 2 : folded / 2;
    });
    const sum = weights.reduce((total, weight) => total + Math.abs(weight), 0);
    if (limit >= LIMITS || sum > MOST) throw damaged();
    return { limit: Math.floor(2 ** (limit / 2)), unit: UNITS[unit], weights };
  });
  while (at < 8 * own.length) if (bit()) throw damaged();
  return { words: words.subarray(0, words.length - size), components };
}

const damaged = () => new HvcError("the restoration is damaged");

/**
 * @param {Int16Array} shown Sixteenths of grey levels, three planes of lines of `stride` pixels.
 * @param {object} size `width` and `height` of the picture, the upper left part of the planes.
 * @returns {Uint8Array} Pixels, laid out likewise.
 */
export function restored(shown, stride, { width, height }, components) {
  const area = shown.length / 3;
  const [wide, tall] = [width + 2 * REACH, height + 2 * REACH];
  // Components with a margin of the pixels at the picture's ends.
  const planes = COMPONENTS.map((factors) => {
    const plane = new Int32Array(wide * tall);
    for (let y = 0; y < tall; y++) {
      const row = Math.min(Math.max(y - REACH, 0), height - 1) * stride;
      for (let x = 0; x < wide; x++) {
        const at = row + Math.min(Math.max(x - REACH, 0), width - 1);
        plane[y * wide + x] = factors[0] * shown[at] + factors[1] * shown[area + at] + factors[2] * shown[2 * area + at];
      }
    }
    return plane;
  });
  const corrections = components.map((found, own) => found && correction(planes, INPUTS[own], found, wide, width, height));
  const result = new Uint8Array(shown.length);
  const scale = SIXTH * FINEST;
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const at = c * area + y * stride + x;
        let value = shown[at] * scale + (scale * UNIT) / 2;
        corrections.forEach((plane, own) => {
          if (plane) value += BACK[c][own] * plane[y * width + x] * (FINEST / components[own].unit);
        });
        result[at] = Math.min(Math.max(Math.floor(value / (scale * UNIT)), 0), 255);
      }
    }
  }
  return result;
}

/** What a component is corrected by, in its own units. */
function correction(planes, inputs, { limit, weights }, wide, width, height) {
  const sum = new Int32Array(width * height);
  inputs.forEach(([c, [i, j], clipped], n) => {
    const [plane, weight, offset] = [planes[c], weights[n], i * wide + j];
    if (!weight) return;
    for (let y = 0; y < height; y++) {
      let at = (y + REACH) * wide + REACH;
      for (let x = 0; x < width; x++, at++) {
        let [one, other] = [plane[at + offset] - plane[at], plane[at - offset] - plane[at]];
        if (clipped) {
          one = Math.min(Math.max(one, -limit), limit);
          other = Math.min(Math.max(other, -limit), limit);
        }
        sum[y * width + x] += weight * (one + other);
      }
    }
  });
  return sum;
}
