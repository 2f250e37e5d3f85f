/** Small pictures from the coarsest layers alone. */
import { LAYERS } from "./ladder.js";

const COLOUR = [[1, 1, 1], [1, -1, 0], [1, 1, -2]].map((row) => row.map((x) => x / Math.hypot(...row)));

/** RGBA of a tile, one pixel for every `stride` x `stride`; 32, 16 or 8 for one, two or three layers. */
export function reducedTile(passes, values, { height, width }, stride) {
  let found = null;
  LAYERS.filter((layer) => layer.stride > stride).forEach((layer, index) => {
    const [rows, columns] = [height / layer.stride, width / layer.stride];
    const size = rows * columns;
    const own = unpacked(passes.filter((pass) => pass.layer === index), values, layer, rows, columns);
    const details = found ? own : own.subarray(3 * size);
    found = unhaar(found ?? own, details, rows, columns);
  });
  const size = (height / stride) * (width / stride);
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let n = 0; n < size; n++) {
    for (let k = 0; k < 3; k++) {
      const sum = COLOUR.reduce((total, row, c) => total + found[c * size + n] * row[k], 0);
      pixels[4 * n + k] = sum / stride + 128;
    }
  }
  return pixels;
}

/** A layer's planes from its passes. */
function unpacked(own, values, { channels, passes }, rows, columns) {
  if (own.length === 1) return values[own[0].graph].data;
  const across = columns / passes;
  const planes = new Float32Array(channels * rows * columns);
  for (const pass of own) {
    values[pass.graph].data.forEach((value, at) => {
      const [line, column] = [Math.floor(at / across), at % across];
      const row = line % rows;
      const plane = pass.channels[Math.floor(line / rows)];
      planes[(plane * rows + row) * columns + (passes === 1 ? column : 2 * column + ((pass.pass + row) % 2))] = value;
    });
  }
  return planes;
}

/** Means, 3 planes, at twice the resolution, from details across, down and both, 9 planes. */
function unhaar(means, details, rows, columns) {
  const size = rows * columns;
  const wide = new Float32Array(12 * size);
  for (let n = 0; n < 3 * size; n++) {
    const [m, h, v, x] = [means[n], details[n], details[3 * size + n], details[6 * size + n]];
    const at = 4 * columns * Math.floor(n / columns) + 2 * (n % columns);
    wide[at] = (m + h + v + x) / 2;
    wide[at + 1] = (m - h + v - x) / 2;
    wide[at + 2 * columns] = (m + h - v - x) / 2;
    wide[at + 2 * columns + 1] = (m - h - v + x) / 2;
  }
  return wide;
}
