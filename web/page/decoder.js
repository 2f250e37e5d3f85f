/**
 * File -> stack -> symbols -> values -> pictures, layer by layer.
 *
 * Where decoding stands after some layers is a plain object that is never changed, so that a picture can be
 * made of any of them and decoding goes on from it.
 */
import { OFF, restorationOf, saysSigns, words } from "./container.js";
import { Stack } from "./ans.js";
import { HvcError } from "./errors.js";
import { f32 } from "./exact.js";
import { LAYERS, lastOf, placeOf, stepsOf } from "./ladder.js";
import { LosslessTables, losslessPixels } from "./lossless.js";
import { floats, tensor } from "./network.js";
import { Costs, sharingSymbols } from "./side_information.js";
import { ladderSymbols } from "./tables.js";
import { alphaOf, canvasPixels } from "./picture.js";
import { restored } from "./restoration.js";
import { reducedTile } from "./preview.js";

const STRIDE = 8; // of the positions that pictures are made from
const WINDOW = 96; // positions of a window of a large picture, both ways
const WHOLE = 128 * 128; // positions up to which a picture is made in one go

export class Decoder {
  /**
   * @param {object} header See `readHeader`.
   * @param {Network} network The model that it names.
   */
  constructor(header, network) {
    this.header = header;
    this.network = network;
    this.passes = network.about.passes;
    this.count = header.steps.length; // of layers without the lossless one
    this.costs = header.sharing ? new Costs(network.tables) : null;
    if (header.lossless) {
      if (!network.about.lossless) throw new HvcError("the stream's model has no lossless layer");
      this.exact = new LosslessTables(network.about.lossless);
    }
  }

  /** Where decoding starts. */
  get start() {
    return { layers: 0, tiles: this.header.tiles.map(() => ({ stack: null })) };
  }

  /** Decode one more layer of all tiles. `bytes` is a prefix of the file that holds it. */
  async further(state, bytes) {
    const { layers } = state;
    if (layers === this.count) return { layers: layers + 1, tiles: state.tiles };
    const tiles = [];
    for (const [n, tile] of state.tiles.entries()) tiles.push(await this.descend(n, tile, layers, bytes));
    return { layers: layers + 1, tiles };
  }

  /** Decode a layer of a tile. */
  async descend(number, tile, layer, bytes) {
    const { run, index } = placeOf(layer);
    const stack = new Stack(words(this.header, bytes, layer + 1, number), tile.stack);
    const steps = stepsOf(this.header.steps, run, this.count);
    let state = index ? tile : { ...tile, values: {}, trunk: null, parts: [] };
    for (const pass of this.passes) {
      if (pass.layer < index || pass.layer > lastOf(layer)) continue;
      state = await this.pass(number, state, pass, steps, (prior, delta, [, , rows, columns]) => {
        if (steps[pass.layer] === OFF) return { known: null, residual: null };
        const before = state.known?.[pass.graph];
        if (run) return this.refined(stack, before, prior, delta, layer);
        return this.plain(stack, prior, delta, [pass, rows, columns]);
      });
    }
    if (layer === this.count - 1 && !this.header.lossless) refuseRest(stack);
    return { ...state, stack: stack.place };
  }

  plain(stack, prior, delta, grid) {
    const symbols = this.costs
      ? sharingSymbols(stack, this.costs, prior, grid, this.header)
      : ladderSymbols(stack, this.network.tables, prior);
    const residual = Float32Array.from(symbols, (symbol) => symbol * delta);
    const refines = this.count > LAYERS.length;
    return { residual, known: refines ? this.network.windows.afterLadder(symbols, prior, delta) : null };
  }

  refined(stack, before, prior, delta, layer) {
    const known = this.network.windows.refine(stack, before, prior, delta, saysSigns(this.header, layer));
    return { residual: known.value.map((value, at) => value - prior.mean[at]), known };
  }

  /** Run the graph of a place in a pass and say what its coefficients are. */
  async pass(number, state, { graph, layer, stride, place, channels }, steps, decide) {
    const inputs = { steps: tensor("int32", Int32Array.from(steps), [steps.length]) };
    if (state.trunk) {
      // The first place of a pass follows all of the pass before, others those before them.
      Object.assign(inputs, { trunk: state.trunk, ...together(state.parts, !place) });
    } else {
      const { height, width } = this.header.tiles[number];
      inputs.size = tensor("int64", BigInt64Array.of(BigInt(height / stride), BigInt(width / stride)), [2]);
    }
    const found = await this.network.run(graph, inputs);
    const [mean, level, shape] = [found.mean.data, found.level.data, found.shape.data];
    const { residual, known } = decide({ mean, level, shape }, this.network.about.deltas[steps[layer]], found.mean.dims);
    const value = floats(residual ? mean.map((m, at) => f32(m + residual[at])) : mean, found.mean.dims);
    const part = { channels, value, residual: floats(residual ?? new Float32Array(mean.length), found.mean.dims) };
    return {
      ...state,
      trunk: found.trunk_out ?? state.trunk,
      parts: place ? [...state.parts, part] : [part],
      values: { ...state.values, [graph]: value },
      known: known ? { ...state.known, [graph]: known } : state.known,
    };
  }

  /** Coefficients and trunk of a tile, with what its missing layers are likely to be. */
  async completed(number, state, layers, steps) {
    const missing = this.passes.filter(({ graph }) => !(graph in state.values));
    for (const pass of missing) {
      state = await this.pass(number, state, pass, steps, (prior) => {
        const known = state.known?.[pass.graph];
        return { residual: known ? known.value.map((value, at) => value - prior.mean[at]) : null };
      });
    }
    const others = { ...state.values };
    delete others[this.passes.at(-1).graph];
    const known = tensor("int32", Int32Array.from(steps), [steps.length]);
    const last = { trunk: state.trunk, ...together(state.parts, true) };
    const found = await this.network.run("planes", { ...others, ...last, steps: known });
    return { planes: found.planes, trunk: found.trunk_out };
  }

  /**
   * The picture that the layers so far make: the pixels of `hvcodec decode --layers`.
   *
   * @returns {Promise<{width: number, height: number, pixels: Uint8ClampedArray}>} RGBA.
   */
  async picture(state, bytes) {
    const { header } = this;
    const layers = Math.min(state.layers, this.count);
    const steps = stepsOf(header.steps, placeOf(layers - 1).run, layers);
    const found = [];
    for (const [n, tile] of state.tiles.entries()) found.push(await this.completed(n, tile, layers, steps));
    const exact = state.layers > this.count;
    const filter = restorationOf(header, bytes, layers);
    let planes = await this.made(found, steps, exact || filter ? "sixteenths" : "pixels");
    if (exact) planes = await this.exactPixels(state, planes, steps, bytes);
    if (filter) planes = restored(planes, Math.ceil(header.width / 64) * 64, header, filter);
    const alpha = header.alpha && (await alphaOf(header));
    return canvasPixels(planes, header, alpha);
  }

  /** Three planes of pixels, or of sixteenths. */
  async made(found, steps, kind) {
    const [height, width] = ["height", "width"].map((side) => Math.ceil(this.header[side] / 64) * 64);
    const [rows, columns] = [height / STRIDE, width / STRIDE];
    const [planes, trunk] = ["planes", "trunk"].map((part) => {
      if (found.length === 1) return found[0][part];
      return joined(found.map((tile) => tile[part]), this.header.tiles, rows, columns);
    });
    const inputs = { steps: tensor("int32", Int32Array.from(steps), [steps.length]) };
    if (rows * columns <= WHOLE) {
      return (await this.network.run("picture", { ...inputs, planes, trunk }, [kind]))[kind].data;
    }
    const result = kind === "pixels" ? new Uint8Array(3 * height * width) : new Int16Array(3 * height * width);
    for (const down of windows(rows, this.network.about.halo)) {
      for (const across of windows(columns, this.network.about.halo)) {
        const part = { planes: window(planes, down, across), trunk: window(trunk, down, across) };
        const made = (await this.network.run("picture", { ...inputs, ...part }, [kind]))[kind];
        paste(made, result, height, width, down, across);
      }
    }
    return result;
  }

  /** The picture itself, from its lossless layer. */
  async exactPixels(state, shown, steps, bytes) {
    const { header } = this;
    const wide = Math.ceil(header.width / 64) * 64;
    const result = new Uint8Array(shown.length);
    for (const [n, { top, left, ...tile }] of header.tiles.entries()) {
      const height = Math.min(tile.height, header.height - top);
      const width = Math.min(tile.width, header.width - left);
      const own = new Int16Array(3 * height * width);
      const size = shown.length / 3;
      const line = (c, y) => c * size + (top + y) * wide + left;
      for (let c = 0; c < 3; c++) {
        for (let y = 0; y < height; y++) {
          own.set(shown.subarray(line(c, y), line(c, y) + width), (c * height + y) * width);
        }
      }
      const stack = new Stack(words(header, bytes, header.layers, n), state.tiles[n].stack);
      const pixels = await losslessPixels(this.network, this.exact, stack, own, height, width, steps, header.colour);
      refuseRest(stack);
      for (let c = 0; c < 3; c++) {
        for (let y = 0; y < height; y++) {
          const from = (c * height + y) * width;
          result.set(pixels.subarray(from, from + width), line(c, y));
        }
      }
    }
    return result;
  }

  /** A small picture that costs next to nothing, while only the coarsest layers are there; else null. */
  preview(state) {
    if (state.layers > 3) return null;
    const { header } = this;
    const stride = 64 >> state.layers;
    const [width, height] = [header.width, header.height].map((side) => Math.ceil(side / stride));
    const pixels = new Uint8ClampedArray(4 * width * height);
    header.tiles.forEach((tile, n) => {
      const part = reducedTile(this.passes, state.tiles[n].values, tile, stride);
      const [top, left] = [tile.top / stride, tile.left / stride];
      const across = tile.width / stride;
      const shown = 4 * Math.min(across, width - left);
      for (let y = 0; y < Math.min(tile.height / stride, height - top); y++) {
        pixels.set(part.subarray(4 * y * across, 4 * y * across + shown), 4 * ((top + y) * width + left));
      }
    });
    return { width, height, pixels };
  }
}

/** Values and residuals of some places of a pass, one after another or with channels in their order. */
function together(parts, inOrder) {
  if (parts.length === 1) return { value: parts[0].value, residual: parts[0].residual };
  const channels = parts.flatMap((part) => part.channels);
  const [, , rows, columns] = parts[0].value.dims;
  const size = rows * columns;
  const found = {};
  for (const kind of ["value", "residual"]) {
    const whole = new Float32Array(channels.length * size);
    let from = 0;
    for (const part of parts) {
      part.channels.forEach((channel, n) => {
        whole.set(part[kind].data.subarray(n * size, (n + 1) * size), (inOrder ? channel : from + n) * size);
      });
      from += part.channels.length;
    }
    found[kind] = floats(whole, [1, channels.length, rows, columns]);
  }
  return found;
}

function refuseRest(stack) {
  if (!stack.empty) throw new HvcError("the coded data do not fit the model");
}

/** Arrays of all tiles, side by side. */
function joined(parts, tiles, rows, columns) {
  const channels = parts[0].dims[1];
  const whole = floats(new Float32Array(channels * rows * columns), [1, channels, rows, columns]);
  tiles.forEach(({ top, left }, n) => {
    const [, , height, width] = parts[n].dims;
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < height; y++) {
        const from = (c * height + y) * width;
        const to = (c * rows + top / STRIDE + y) * columns + left / STRIDE;
        whole.data.set(parts[n].data.subarray(from, from + width), to);
      }
    }
  });
  return whole;
}

/** Windows over so many positions: where each starts and ends, and which of it is kept. */
function windows(length, halo) {
  return Array.from({ length: Math.ceil(length / WINDOW) }, (_, n) => {
    const [first, last] = [n * WINDOW, Math.min((n + 1) * WINDOW, length)];
    return { first, last, start: Math.max(first - halo, 0), stop: Math.min(last + halo, length) };
  });
}

function window(whole, down, across) {
  const [, channels, rows, columns] = whole.dims;
  const [height, width] = [down.stop - down.start, across.stop - across.start];
  const part = floats(new Float32Array(channels * height * width), [1, channels, height, width]);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      const from = (c * rows + down.start + y) * columns + across.start;
      part.data.set(whole.data.subarray(from, from + width), (c * height + y) * width);
    }
  }
  return part;
}

function paste(made, result, height, width, down, across) {
  const [, channels, rows, columns] = made.dims;
  const from = (down.first - down.start) * STRIDE;
  const skipped = (across.first - across.start) * STRIDE;
  const kept = (across.last - across.first) * STRIDE;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < (down.last - down.first) * STRIDE; y++) {
      const start = (c * rows + from + y) * columns + skipped;
      const to = (c * height + down.first * STRIDE + y) * width + across.first * STRIDE;
      result.set(made.data.subarray(start, start + kept), to);
    }
  }
}
