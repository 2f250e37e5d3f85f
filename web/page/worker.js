/**
 * Decodes files, away from the page. Takes { id, source }, a File or an address, and { layers } for every cut
 * of it that the page wants to see. Says, with the id of what is open, { header }, { received }, { picture } and
 * { error }.
 */
import { readHeader, wholeLayers } from "./container.js";
import { Decoder } from "./decoder.js";
import { HvcError } from "./errors.js";
import { endsRun } from "./ladder.js";
import { networkOf } from "./network.js";

const KEPT = 1 << 21; // pixels of pictures up to which everything that pictures are made from is kept

/** The bytes of a file as they come. */
class Download {
  constructor() {
    this.bytes = new Uint8Array(1 << 16);
    this.size = 0;
    this.ended = false;
  }

  get whole() {
    return this.bytes.subarray(0, this.size);
  }

  add(chunk) {
    if (this.size + chunk.length > this.bytes.length) {
      const wider = new Uint8Array(2 * (this.size + chunk.length));
      wider.set(this.whole);
      this.bytes = wider;
    }
    this.bytes.set(chunk, this.size);
    this.size += chunk.length;
  }
}

/** One file that is open. */
class Opened {
  constructor(id) {
    this.id = id;
    this.download = new Download();
    this.header = null;
    this.wanted = null; // a cut that the page asked for
    this.wake = () => {};
  }

  say(message, transfer = []) {
    if (opened === this) postMessage({ id: this.id, ...message }, transfer);
  }

  fail(error) {
    if (error instanceof HvcError) return this.say({ error: error.message });
    this.say({ error: `this browser cannot decode the file: ${error.message}` });
    throw error;
  }

  async receive(source) {
    const reader = (await streamOf(source)).getReader();
    try {
      await this.read(reader);
    } finally {
      reader.cancel().catch(() => {});
    }
    if (opened !== this) return;
    const { download } = this;
    if (!this.header) throw new HvcError("the file ends inside its header");
    const { cuts } = this.header;
    if (download.size > cuts.at(-1)) throw new HvcError("the file goes on after its last layer");
    if (!cuts.includes(download.size)) {
      throw new HvcError(`the file ends inside layer ${this.whole + 1}; what is whole of it is shown`);
    }
  }

  /** Take bytes until there are no more, or more than the file can have. */
  async read(reader) {
    const { download } = this;
    while (!this.header || download.size <= this.header.cuts.at(-1)) {
      // A connection that is lost is the end of what can be shown.
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      if (done || opened !== this) return;
      download.add(value);
      if (!this.header) {
        this.header = readHeader(download.whole);
        if (this.header) this.say({ header: this.header });
      }
      this.say({ received: download.size });
      this.wake();
    }
  }

  /** How many layers are there. */
  get whole() {
    return wholeLayers(this.header, this.download.size);
  }

  /** Decode what there is: layers as they come, then the picture that they make, then what the page wants. */
  async decode() {
    while (!this.header) await this.next();
    const { header, download } = this;
    const decoder = new Decoder(header, await networkOf(header.model));
    const states = [decoder.start];
    let shown = 0;
    while (opened === this) {
      const newest = states.at(-1);
      // At the end of a run down the ladder there is a picture to look at until the next one ends.
      if (newest.layers < this.whole && !(shown < newest.layers && endsRun(newest.layers))) {
        const state = await decoder.further(newest, download.whole);
        if (header.width * header.height > KEPT) states[newest.layers] = null;
        states.push(state);
        const preview = decoder.preview(state);
        if (preview) this.show(preview, state.layers, true);
      } else if (shown < newest.layers) {
        shown = newest.layers;
        this.show(await decoder.picture(newest, download.whole), shown, false);
      } else if (this.wanted) {
        const layers = Math.min(this.wanted, newest.layers);
        this.wanted = null;
        let state = states.slice(0, layers + 1).findLast((kept) => kept) ?? decoder.start;
        while (state.layers < layers) state = await decoder.further(state, download.whole);
        this.show(await decoder.picture(state, download.whole), layers, false);
      } else {
        await this.next();
      }
    }
  }

  /** Until more bytes or a wish came in. */
  next() {
    return new Promise((resolve) => (this.wake = resolve));
  }

  show({ width, height, pixels }, layers, preview) {
    this.say({ picture: { width, height, pixels, layers, preview } }, [pixels.buffer]);
  }
}

async function streamOf(source) {
  if (typeof source !== "string") return source.stream();
  const response = await fetch(source).catch(() => null);
  if (!response?.ok) throw new HvcError(`${source} cannot be fetched`);
  return response.body;
}

let opened = null;

onmessage = ({ data: { id, source, layers } }) => {
  if (source) {
    opened?.wake();
    opened = new Opened(id);
    const own = opened;
    own.receive(source).catch((error) => own.fail(error));
    own.decode().catch((error) => own.fail(error));
  } else if (layers) {
    opened.wanted = layers;
    opened.wake();
  }
};
