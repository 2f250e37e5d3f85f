/**
 * Decodes one file, away from the page: takes { source } once, a File or a URL, and then { layers }
 * for every cut that the page wants to see; says { header }, { received }, { picture } and { error }.
 */
import { readHeader, wholeLayers } from "./container.js";
import { Decoder } from "./decoder.js";
import { HvcError } from "./errors.js";
import { Network } from "./network.js";

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

const download = new Download();
const wanted = []; // cuts that the page asked for, the latest last
let header = null;
let wake = () => {};

async function receive(source) {
  let stream = source;
  if (typeof source === "string") {
    const response = await fetch(source).catch(() => null);
    if (!response?.ok) throw new HvcError(`${source} cannot be fetched`);
    stream = response.body;
  } else {
    stream = source.stream();
  }
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    download.add(value);
    if (!header) {
      header = readHeader(download.whole);
      if (header) postMessage({ header });
    }
    postMessage({ received: download.size });
    wake();
  }
  download.ended = true;
  wake();
  if (!header) throw new HvcError("the file ends inside its header");
  const whole = wholeLayers(header, download.size);
  if (download.size > header.cuts.at(-1)) throw new HvcError("the file goes on after its last layer");
  if (!header.cuts.includes(download.size)) {
    throw new HvcError(`the file ends inside layer ${whole + 1}; what is whole of it is shown`);
  }
}

/** Decode whatever there is: first layers that came, then the newest picture, then what the page wants. */
async function decode() {
  while (!header) await next();
  const decoder = new Decoder(header, await Network.open(header.model));
  const states = [decoder.start];
  let shown = 0;
  for (;;) {
    const newest = states.at(-1);
    if (newest.layers < wholeLayers(header, download.size)) {
      states[newest.layers + 1] = await decoder.further(newest, download.whole);
      if (header.width * header.height > KEPT) states[newest.layers] = null;
      const preview = decoder.preview(states.at(-1));
      if (preview) show(preview, newest.layers + 1, true);
    } else if (shown < newest.layers) {
      shown = newest.layers;
      show(await decoder.picture(newest, download.whole), shown, false);
    } else if (wanted.length) {
      const layers = Math.min(wanted.splice(0).at(-1), newest.layers);
      let state = states.slice(0, layers + 1).findLast((kept) => kept);
      while (state.layers < layers) state = await decoder.further(state, download.whole);
      show(await decoder.picture(state, download.whole), layers, false);
    } else {
      await next();
    }
  }
}

const next = () => new Promise((resolve) => (wake = resolve));

function show({ width, height, pixels }, layers, preview) {
  postMessage({ picture: { width, height, pixels, layers, preview } }, [pixels.buffer]);
}

function fail(error) {
  if (error instanceof HvcError) postMessage({ error: error.message });
  else {
    postMessage({ error: `this browser cannot decode the file (${error.message})` });
    throw error;
  }
}

onmessage = ({ data: { source, layers } }) => {
  if (source !== undefined) {
    receive(source).catch(fail);
    decode().catch(fail);
  } else {
    wanted.push(layers);
    wake();
  }
};
