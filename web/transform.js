/**
 * Coefficients -> pixels: three Haar steps, an 8x8 DCT, rotations around block borders, and colour
 * (docs/format.md, "Inverse transform"). Exact: whole numbers of 2^-8 times whole numbers of 2^-14, whose
 * sums float64 holds, rounded to 2^-8 in between. Planes lie one after the other, row by row.
 */
import { f32, rint } from "./exact.js";
import { frequencies } from "./ladder.js";

const BLOCK = 8;
const OVERLAP = 4;
const WEIGHTS = 2 ** 14;
const VALUES = 2 ** 8;

const whole = (x) => rint(f32(x) * WEIGHTS);

const COLOUR = [[1, 1, 1], [1, -1, 0], [1, 1, -2]].map((row) => {
  const length = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0));
  return row.map((x) => whole(x / length));
});

/** For every plane its 64 coefficients: number, and basis function over the pixels of a block. */
const BASIS = [[], [], []];
frequencies().forEach(([plane, v, h], coefficient) => {
  const wave = (k, x) => (Math.cos((Math.PI * (2 * x + 1) * k) / 16) * 0.5) / (k ? 1 : Math.SQRT2);
  const pixels = Float64Array.from({ length: 64 }, (_, n) => whole(wave(v, n >> 3) * wave(h, n & 7)));
  BASIS[plane].push({ coefficient, pixels });
});

/**
 * Means at twice the resolution.
 *
 * @param {Float32Array} means 3 planes.
 * @param {Float32Array} details 9 planes: across, down, and both, of each.
 */
export function unhaar(means, details, height, width) {
  const size = height * width;
  const wide = new Float32Array(12 * size);
  for (let c = 0; c < 3; c++) {
    for (let n = 0; n < size; n++) {
      const m = means[c * size + n];
      const h = details[c * size + n];
      const v = details[(3 + c) * size + n];
      const x = details[(6 + c) * size + n];
      const at = 4 * (c * size + Math.floor(n / width) * width) + 2 * (n % width);
      const [sum, difference] = [f32(m + h), f32(m - h)];
      wide[at] = f32(f32(sum + v) + x) / 2;
      wide[at + 1] = f32(f32(difference + v) - x) / 2;
      wide[at + 2 * width] = f32(f32(sum - v) - x) / 2;
      wide[at + 2 * width + 1] = f32(f32(difference - v) + x) / 2;
    }
  }
  return wide;
}

/** The 3 means at stride 8 (or at that of the last of some first layers) from z7 to z5. */
export function means(values, height, width) {
  const size = (height / 64) * (width / 64);
  let found = values[0].subarray(0, 3 * size);
  const details = [values[0].subarray(3 * size), ...values.slice(1, 3)];
  details.forEach((part, k) => {
    found = unhaar(found, part, (height / 64) * 2 ** k, (width / 64) * 2 ** k);
  });
  return found;
}

/** Means at a stride -> pixels, RGBA, of a picture so many times smaller. */
export function reduced(found, height, width, stride) {
  const size = height * width;
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let n = 0; n < size; n++) {
    for (let k = 0; k < 3; k++) {
      let sum = 0;
      for (let c = 0; c < 3; c++) sum += found[c * size + n] * COLOUR[c][k];
      pixels[4 * n + k] = sum / WEIGHTS / stride + 128;
    }
  }
  return pixels;
}

/**
 * Coefficients, 192 planes -> RGB minus 128, 3 planes of float32, not clamped.
 *
 * @param {Float32Array} coefficients
 * @param {number} rows, columns In blocks.
 * @param {Int16Array} turns Rotations of the three planes down, then across, 6 x 8 x 8.
 */
export function pixels(coefficients, rows, columns, turns) {
  const [height, width] = [rows * BLOCK, columns * BLOCK];
  const planes = BASIS.map((basis, c) => {
    const plane = blocks(coefficients, rows, columns, basis);
    rotate(plane, turns.subarray(64 * (3 + c)), height, width, width, 1);
    rotate(plane, turns.subarray(64 * c), width, height, 1, width);
    return plane;
  });
  const size = height * width;
  const result = new Float32Array(3 * size);
  for (let k = 0; k < 3; k++) {
    const [a, b, c] = COLOUR.map((row) => row[k]);
    for (let n = 0; n < size; n++) {
      result[k * size + n] = (planes[0][n] * a + planes[1][n] * b + planes[2][n] * c) / (VALUES * WEIGHTS);
    }
  }
  return result;
}

/** One plane from its DCT, in units of 2^-8. */
function blocks(coefficients, rows, columns, basis) {
  const plane = new Float64Array(64 * rows * columns);
  const block = new Float64Array(64);
  for (let n = 0; n < rows * columns; n++) {
    block.fill(0);
    for (const { coefficient, pixels } of basis) {
      const value = rint(coefficients[coefficient * rows * columns + n] * VALUES);
      if (value) for (let k = 0; k < 64; k++) block[k] += value * pixels[k];
    }
    const corner = Math.floor(n / columns) * 64 * columns + (n % columns) * BLOCK;
    for (let k = 0; k < 64; k++) plane[corner + (k >> 3) * BLOCK * columns + (k & 7)] = rint(block[k] / WEIGHTS);
  }
  return plane;
}

/** Turn the 8 numbers around every inner block border of every line back, in place. */
function rotate(plane, turn, lines, length, between, along) {
  const part = new Float64Array(BLOCK);
  for (let line = 0; line < lines; line++) {
    for (let start = OVERLAP; start < length - OVERLAP; start += BLOCK) {
      const at = line * between + start * along;
      for (let i = 0; i < BLOCK; i++) part[i] = plane[at + i * along];
      for (let k = 0; k < BLOCK; k++) {
        let sum = 0;
        for (let i = 0; i < BLOCK; i++) sum += part[i] * turn[BLOCK * i + k];
        plane[at + k * along] = rint(sum / WEIGHTS);
      }
    }
  }
}
