/** The ladder's layers, coarse to fine (hvcodec/ladder.py), and the positions of their passes. */
import { INDEX_PER_LEVEL, OFF } from "./container.js";

const BANDS = {
  luma: [[1, 2], [3, 4], [5, 7], [8, 14]],
  chroma: [[1, 1], [2, 2], [3, 4], [5, 14]],
};

export const LAYERS = [
  { name: "z7", stride: 64, channels: 12, passes: 1 },
  { name: "z6", stride: 32, channels: 9, passes: 2 },
  { name: "z5", stride: 16, channels: 9, passes: 2 },
  { name: "z4", stride: 8, channels: 9, passes: 2 },
  { name: "z3", stride: 8, channels: 15, passes: 2 },
  { name: "z2", stride: 8, channels: 39, passes: 2 },
  { name: "z1", stride: 8, channels: 126, passes: 2 },
];
const COARSE_HALF = 4; // layers of the ladder that the first layer of a level refines

/** Colour plane, vertical and horizontal frequency of every coefficient of an 8x8 block, DC first. */
export function frequencies() {
  const order = [0, 1, 2].map((plane) => [plane, 0, 0]);
  for (let band = 0; band < BANDS.luma.length; band++) {
    const own = [];
    for (let plane = 0; plane < 3; plane++) {
      const [low, high] = BANDS[plane ? "chroma" : "luma"][band];
      for (let v = 0; v < 8; v++) {
        for (let h = 0; h < 8; h++) if (low <= v + h && v + h <= high) own.push([plane, v, h]);
      }
    }
    order.push(...own.sort((a, b) => a[1] + a[2] - b[1] - b[2] || a[0] - b[0] || a[1] - b[1]));
  }
  return order;
}

/** The file's layer in which a run down the ladder sends a layer of the ladder. */
export function layerOf(run, index) {
  return run ? LAYERS.length + 2 * (run - 1) + (index >= COARSE_HALF) : index;
}

/** Layer of the ladder, and run, that a layer of the file begins with. */
export function placeOf(layer) {
  if (layer < LAYERS.length) return { run: 0, index: layer };
  const further = layer - LAYERS.length;
  return { run: 1 + (further >> 1), index: further % 2 ? COARSE_HALF : 0 };
}

/** Step indices that the ladder's layers are known to after a run, if `count` layers are there. */
export function stepsOf(steps, run, count) {
  return LAYERS.map((_, k) => {
    if (k >= count) return OFF;
    return steps[k] - INDEX_PER_LEVEL * (run - (layerOf(run, k) >= count));
  });
}
