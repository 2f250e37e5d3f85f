/** The ladder's layers, coarse to fine (hvcodec/ladder.py), and the file's layers. */
import { INDEX_PER_LEVEL, OFF } from "./container.js";

export const LAYERS = [
  { name: "z7", stride: 64, channels: 12, passes: 1 },
  { name: "z6", stride: 32, channels: 9, passes: 2 },
  { name: "z5", stride: 16, channels: 9, passes: 2 },
  { name: "z4", stride: 8, channels: 9, passes: 2 },
  { name: "z3", stride: 8, channels: 15, passes: 2 },
  { name: "z2", stride: 8, channels: 39, passes: 2 },
  { name: "z1", stride: 8, channels: 126, passes: 2 },
];
// First and last anti-diagonal of the first colour plane and of the others.
const BANDS = { 3: [[1, 2], [1, 1]], 4: [[3, 4], [2, 2]], 5: [[5, 7], [3, 4]], 6: [[8, 14], [5, 14]] };
const COARSE_HALF = 4; // layers of the ladder that the first layer of a level refines

/** Colour plane of every channel of a layer; 0 is luma. */
export function colourPlanes(index) {
  const { stride, channels } = LAYERS[index];
  if (stride > 8) return Array.from({ length: channels }, (_, channel) => channel % 3);
  const planes = [];
  for (let diagonal = 1; diagonal <= 14; diagonal++) {
    for (let plane = 0; plane < 3; plane++) {
      const [first, last] = BANDS[index][plane ? 1 : 0];
      if (diagonal < first || diagonal > last) continue;
      const count = Math.min(diagonal, 7) - Math.max(diagonal - 7, 0) + 1;
      for (let n = 0; n < count; n++) planes.push(plane);
    }
  }
  return planes;
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

/** The last of the ladder's layers that a layer of the file holds. */
export function lastOf(layer) {
  const { run, index } = placeOf(layer);
  if (!run) return index;
  return index ? LAYERS.length - 1 : COARSE_HALF - 1;
}

/** Whether some layers of a file end with a run down the ladder. */
export const endsRun = (layers) => layers > 0 && lastOf(layers - 1) === LAYERS.length - 1;

/** Step indices that the ladder's layers are known to after a run, if `count` layers are there. */
export function stepsOf(steps, run, count) {
  return LAYERS.map((_, k) => {
    if (k >= count) return OFF;
    return steps[k] - INDEX_PER_LEVEL * (run - (layerOf(run, k) >= count));
  });
}
