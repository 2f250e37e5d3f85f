/** One pass of one layer: from what the network's head gives to values, and to what its trunk is told. */
import { clamp, f32, log2 } from "./exact.js";
import { levelOf, pop, shapeOf, shiftOf, tableOf } from "./tables.js";

/**
 * Distributions of a pass's coefficients.
 *
 * @param {Float32Array} head Means, scales and shapes, one plane for each channel.
 * @param {Float32Array} spread, logSpread By channel.
 * @returns {{mean: Float32Array, level: Uint8Array, shape: Uint8Array}}
 */
export function priorOf(head, spread, logSpread, delta) {
  const count = head.length / 3;
  const size = count / spread.length;
  const mean = new Float32Array(count);
  const [level, shape] = [new Uint8Array(count), new Uint8Array(count)];
  const logDelta = log2(delta);
  for (let c = 0; c < spread.length; c++) {
    for (let at = c * size; at < (c + 1) * size; at++) {
      mean[at] = clamp(f32(head[at] * 0.25), -8, 8) * spread[c];
      const logScale = f32(f32(clamp(head[count + at], -8, 8) + logSpread[c]) - 1);
      level[at] = levelOf(logScale, logDelta);
      shape[at] = shapeOf(head[2 * count + at]);
    }
  }
  return { mean, level, shape };
}

/** Symbols of a pass of the ladder. */
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
 * Values of a pass, and their features for the trunk: themselves in spreads and on a logarithmic scale,
 * and what they add to the mean, in steps, likewise; one plane for each channel.
 *
 * @param {Float32Array|null} residual Values minus means; null if there are none.
 * @returns {{values: Float32Array, features: Float32Array}}
 */
export function absorbed(mean, residual, spread, delta) {
  const count = mean.length;
  const size = count / spread.length;
  const values = residual ? new Float32Array(count) : mean;
  const features = new Float32Array(3 * count);
  for (let at = 0; at < count; at++) {
    if (residual) values[at] = mean[at] + residual[at];
    const value = values[at];
    features[at] = clamp(f32(value / spread[Math.floor(at / size)]), -8, 8);
    features[count + at] = (Math.sign(value) * log2(f32(1 + Math.abs(value) / 2))) / 4;
    const symbol = residual ? f32(residual[at] / delta) : 0;
    if (symbol) features[2 * count + at] = (Math.sign(symbol) * log2(f32(1 + Math.abs(symbol)))) / 2;
  }
  return { values, features };
}
