/**
 * The `.hvc` file: header, table of segments, metadata, segments; docs/format.md says every field.
 * Works on any prefix of a file, so that a download can be read as it comes.
 */
import { HvcError } from "./errors.js";
import { split } from "./restoration.js";

const MAGIC = [0x89, 0x48, 0x56, 0x43];
const FIXED = 24; // bytes before the table
const CHECK_AT = 22;
const BITS_BACK = 0b101; // passes of the ladder have side information
const OF_CHANNELS = 0b100000; // it has latents of channels, too
const SIGNS = 0b10000000; // and signs that nothing is sent for
const LOSSLESS = 0b1000;
const METADATA = 0b10000;
const RESTORED = 0b1000000; // layers end in a filter of the picture
const COLOURS = ["rgb", "grey"];
const CHUNKS = { 1: "icc", 2: "exif", 3: "xmp", 4: "alpha" };
const COUNT_BYTES = 4;
const MAX_LAYERS = 64;
const MAX_TILE = 2048;
const MAX_PIXELS = 1 << 25; // what a browser's memory holds

const LADDER = 7;
const LAYERS_PER_LEVEL = 2;
const MAX_LEVELS = 4;
const RATIO = 2;
export const OFF = 255;
export const INDEX_PER_LEVEL = 16;

/** Raised by `Reader` where a prefix of a header ends. */
class Ended extends Error {}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count) {
    if (count > this.bytes.length - this.at) throw new Ended();
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  /** An unsigned integer of some bytes, little endian. */
  number(size) {
    return this.take(size).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  /** A number in groups of 7 bits, low ones first. */
  count() {
    let total = 0;
    for (let place = 0; place < COUNT_BYTES; place++) {
      const [byte] = this.take(1);
      total += (byte & 0x7f) << (7 * place);
      if (byte < 0x80) return total;
    }
    throw new HvcError("the header names a segment of impossible length");
  }
}

/** CRC-16/CCITT, going on from `crc`. */
function check(bytes, crc = 0) {
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
    crc &= 0xffff;
  }
  return crc;
}

const padded = (width, height) => Math.ceil(width / 64) * Math.ceil(height / 64) * 64 ** 2;

/**
 * What stands before the segments.
 *
 * @param {Uint8Array} bytes A prefix of a file.
 * @returns {object|null} null if the header is not all there. Else width, height (pixels); model (id,
 *   hexadecimal); steps (indices of the ladder's layers, then 2 for each layer of refinement); lossless
 *   (whether a layer of exact pixels follows); layers (how many in all); names (of layers); colour
 *   ("rgb" or "grey"); alpha (bytes of a PNG, if there are any); tiles (see `tiled`); cuts (file sizes at
 *   the layers' ends); segments (per layer and tile, start and end).
 * @throws {HvcError} Not a file of this format, damaged, or too large.
 */
export function readHeader(bytes) {
  if (MAGIC.some((byte, at) => at < bytes.length && bytes[at] !== byte)) throw new HvcError("not a .hvc file");
  try {
    return parse(new Reader(bytes));
  } catch (error) {
    if (error instanceof Ended) return null;
    throw error;
  }
}

function parse(reader) {
  const fixed = reader.take(FIXED).slice();
  const [version, coder, flags, layers] = fixed.subarray(MAGIC.length);
  if (version !== 1 || (coder !== 1 && coder !== 2)) throw new HvcError("a version of .hvc files that this page does not read");
  const model = [...fixed.subarray(8, 14)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const inside = new Reader(fixed);
  inside.at = 14;
  const [width, height, tile, colour, sum] = [3, 3, 1, 1, 2].map((size) => inside.number(size));
  const lossless = Boolean(flags & LOSSLESS);
  if (!width || !height || layers < 1 + lossless || layers > MAX_LAYERS) {
    throw new HvcError("the header names an empty picture or no layers");
  }
  if (padded(width, height) > MAX_PIXELS) throw new HvcError(`${width}x${height} pixels are too many for this page`);
  const side = 64 * tile;
  if (side > MAX_TILE || (!side && padded(width, height) > MAX_TILE ** 2)) {
    throw new HvcError("the header names tiles of more than 4 megapixels");
  }
  const steps = [...reader.take(layers - lossless)];
  const tiles = tiled(width, height, side);
  const lengths = Array.from({ length: layers * tiles.length }, () => 4 * reader.count() + 2);
  const chunks = flags & METADATA ? reader.take(reader.number(4)) : [];
  const body = reader.bytes.subarray(FIXED, reader.at);
  fixed.fill(0, CHECK_AT);
  if (check(body, check(fixed)) !== sum) throw new HvcError("the header is damaged (its check fails)");
  const sharing = flags & (BITS_BACK | OF_CHANNELS | SIGNS);
  const both = BITS_BACK | OF_CHANNELS;
  const filters = flags & RESTORED ? (steps.length > LADDER ? coder : 1) : 0;
  const signs = flags & SIGNS ? coder : 0;
  let known = [0, BITS_BACK, both, both | SIGNS].includes(sharing) && !(lossless && filters);
  known &&= coder === Math.max(1, signs, filters);
  if (flags & ~(both | SIGNS | LOSSLESS | METADATA | RESTORED) || !known || !(colour in COLOURS)) {
    throw new HvcError("the file uses features that this page does not know");
  }
  refuseOtherLadders(steps);
  let end = reader.at;
  const segments = lengths.map((length) => [end, (end += length)]);
  const cuts = Array.from({ length: layers }, (_, k) => segments[(k + 1) * tiles.length - 1][1]);
  const names = steps.map((_, k) => (k < LADDER ? `z${LADDER - k}` : `r${steps.length - k}`));
  if (lossless) names.push("exact");
  const { alpha } = metadata(chunks);
  return {
    width, height, model, steps, lossless, sharing: Boolean(sharing), ofChannels: Boolean(flags & OF_CHANNELS),
    signs, filters, layers, names, colour: COLOURS[colour], alpha, tiles, cuts, segments, start: reader.at,
  };
}

function metadata(chunks) {
  const found = {};
  const reader = new Reader(chunks);
  try {
    while (reader.at < chunks.length) {
      const kind = reader.number(1);
      const content = reader.take(reader.number(4));
      if (kind in CHUNKS) found[CHUNKS[kind]] = content.slice();
    }
  } catch (error) {
    if (error instanceof Ended) throw new HvcError("the header is damaged");
    throw error;
  }
  return found;
}

function refuseOtherLadders(steps) {
  const ladder = steps.slice(0, LADDER);
  const refinements = steps.slice(LADDER);
  const levels = refinements.length / LAYERS_PER_LEVEL;
  if (
    ladder.length < LADDER ||
    !Number.isInteger(levels) ||
    levels > MAX_LEVELS ||
    refinements.some((step) => step !== RATIO) ||
    (levels && ladder.includes(OFF)) ||
    Math.min(...ladder) < INDEX_PER_LEVEL * levels
  ) {
    throw new HvcError("the file's layers are not those of this format");
  }
}

/** Tiles row by row: top, left, height and width in pixels, which may reach over the picture's ends to
 * whole units of 64. */
function tiled(width, height, side) {
  const [wide, tall] = [width, height].map((size) => Math.ceil(size / 64) * 64);
  const [down, across] = [side || tall, side || wide];
  const tiles = [];
  for (let top = 0; top < tall; top += down) {
    for (let left = 0; left < wide; left += across) {
      tiles.push({ top, left, height: Math.min(down, tall - top), width: Math.min(across, wide - left) });
    }
  }
  return tiles;
}

/** How many layers, coarse first, a prefix of `size` bytes holds whole. */
export const wholeLayers = (header, size) => header.cuts.filter((cut) => cut <= size).length;

function segment(header, bytes, layer, tile) {
  const [start, end] = header.segments[layer * header.tiles.length + tile];
  const content = bytes.subarray(start, end - 2);
  if (check(content) !== bytes[end - 2] + 256 * bytes[end - 1]) {
    throw new HvcError(`layer ${layer + 1} is damaged (its check fails)`);
  }
  return content;
}

/** Layers that end in a filter of the picture. */
function filtered({ filters, steps }) {
  if (filters < 2) return filters ? [steps.length - 1] : [];
  const levels = (steps.length - LADDER) / LAYERS_PER_LEVEL;
  return Array.from({ length: levels }, (_, level) => LADDER + (level + 1) * LAYERS_PER_LEVEL - 1);
}

/** The filter of the picture (`restoration.js`), per component, that the first layers have, or null. */
export function restorationOf(header, bytes, layers) {
  const last = filtered(header).filter((layer) => layer < layers).pop();
  return last === undefined ? null : split(segment(header, bytes, last, 0)).components;
}

/** The coder version of the signs that the ladder says, or 0. */
export const signsOfLadder = ({ signs, steps }) => (signs > 1 && steps.length > LADDER ? 0 : signs);

/** Whether a layer of refinement says signs. */
export const saysSigns = ({ signs, steps }, layer) => signs > 1 && layer >= steps.length - LAYERS_PER_LEVEL;

/**
 * The words of the first layers of a tile, most recent first.
 *
 * @returns {Uint32Array}
 * @throws {HvcError} A check fails.
 */
export function words(header, bytes, layers, tile) {
  const parts = Array.from({ length: layers }, (_, layer) => segment(header, bytes, layer, tile));
  for (const layer of tile ? [] : filtered(header)) if (layer < layers) parts[layer] = split(parts[layer]).words;
  const total = parts.reduce((sum, part) => sum + part.length, 0);
  const found = new Uint32Array(total / 4);
  const view = new DataView(found.buffer);
  let at = 0;
  for (const part of parts) for (const byte of part) view.setUint8(at++, byte);
  if (new Uint8Array(new Uint32Array([1]).buffer)[0]) return found;
  return found.map((_, n) => view.getUint32(4 * n, true));
}
