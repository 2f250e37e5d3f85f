/** The page: opens files, shows pictures as the worker sends them, and the layers that they are made of. */
const get = (id) => document.getElementById(id);
const [decoded, beside, cut, numbers, message, shares] = ["decoded", "beside", "cut", "numbers", "message", "shares"].map(get);

const KEPT = 1 << 26; // pixels of all pictures of a file up to which they are kept
const LABELLED = 0.02; // shares of a file from which a layer's name fits into its part of the bar

/** What is open, and what the page has of it. */
class Opened {
  constructor(source, name) {
    this.id = ++count;
    this.name = name;
    this.header = null;
    this.received = 0;
    this.pictures = new Map(); // by layers; previews until the pictures come
    this.chosen = null; // layers that the user wants to see; null for the newest
    worker.postMessage({ id: this.id, source });
  }

  hear({ header, received, picture, error }) {
    if (error) say(error);
    if (header) {
      this.header = header;
      drawShares(header);
      say("");
    }
    if (received) this.received = received;
    if (picture) this.keep(picture);
    draw();
  }

  keep({ width, height, pixels, layers, preview }) {
    const { header, pictures } = this;
    if (header.layers * header.width * header.height > KEPT) {
      for (const other of pictures.keys()) if (other !== this.chosen) pictures.delete(other);
    }
    pictures.set(layers, { image: new ImageData(pixels, width, height), preview });
  }

  /** How many layers are there. */
  get layers() {
    return this.header.cuts.filter((cut) => cut <= this.received).length;
  }

  /** Layers of the picture that is shown: those asked for, or the most that there are. */
  get shown() {
    return this.chosen ?? Math.max(0, ...this.pictures.keys());
  }

  choose(layers) {
    this.chosen = Math.min(layers, this.layers) || null;
    if (this.chosen && this.pictures.get(this.chosen)?.preview !== false) worker.postMessage({ layers: this.chosen });
    draw();
  }
}

const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data: { id, ...news } }) => {
  if (opened.id === id) opened.hear(news);
};
worker.onerror = () => say("this browser cannot run the decoder");

let opened = null;
let count = 0; // of files that were opened
let original = null; // ImageData

function open(source, name) {
  opened = new Opened(source, name);
  document.title = `${name} – hvcodec`;
  delete document.body.dataset.shown;
  decoded.parentElement.hidden = true;
  get("controls").hidden = true;
  say("reading…");
}

function say(text) {
  message.textContent = text;
  message.hidden = !text;
}

/** The bar: a part for each layer, as wide as its share of the file. */
function drawShares({ names, cuts, start }) {
  const parts = names.map((name, k) => {
    const part = document.createElement("button");
    const bytes = cuts[k] - (k ? cuts[k - 1] : start);
    const share = bytes / cuts.at(-1);
    part.textContent = share > LABELLED ? name : "";
    part.title = `${name}: ${bytes} bytes, ${(100 * share).toFixed(1)} %`;
    part.style.flex = `${bytes} 0 0`;
    part.style.background = `hsl(${215 + (150 * k) / names.length} 55% 42%)`;
    part.onclick = () => opened.choose(k + 1);
    return part;
  });
  shares.replaceChildren(...parts);
  cut.max = names.length;
  get("controls").hidden = false;
}

function draw() {
  if (!opened?.header) return;
  const { header, pictures, shown, layers, received } = opened;
  cut.value = shown || 1;
  [...shares.children].forEach((part, k) => part.classList.toggle("beyond", k >= shown));
  const arrived = layers < header.layers ? `; ${received} bytes are here, ${layers} of ${header.layers} layers` : "";
  const picture = pictures.get(shown);
  if (!shown) return (numbers.textContent = arrived.slice(2));
  const bytes = header.cuts[shown - 1];
  const bpp = (8 * bytes) / (header.width * header.height);
  const waiting = !picture ? ", decoding…" : picture.preview ? ", preview" : "";
  numbers.textContent =
    `${header.names[shown - 1]}: ${shown} of ${header.layers} layers, ${bytes.toLocaleString("en")} bytes, ` +
    `${bpp.toFixed(3)} bpp${distance(picture)}${waiting}${arrived}`;
  if (picture) {
    paint(decoded, picture.image, header.width, header.height);
    decoded.parentElement.lastElementChild.textContent = `${opened.name}, ${header.width}×${header.height}`;
    document.body.dataset.shown = picture.preview ? `preview ${shown}` : `${shown}`;
  }
}

/** Draw a picture, however small, at the size of the whole one. */
function paint(canvas, image, width, height) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (image.width === width && image.height === height) context.putImageData(image, 0, 0);
  else {
    const small = new OffscreenCanvas(image.width, image.height);
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, width, height);
  }
  canvas.parentElement.hidden = false;
}

/** PSNR against the original, if there is one of the same size. */
function distance(picture) {
  if (!picture || picture.preview || !original) return "";
  const [a, b] = [picture.image.data, original.data];
  if (picture.image.width !== original.width || picture.image.height !== original.height) return "";
  let sum = 0;
  for (let at = 0; at < a.length; at++) if (at % 4 < 3) sum += (a[at] - b[at]) ** 2;
  return sum ? `, ${(10 * Math.log10((255 ** 2 * 0.75 * a.length) / sum)).toFixed(2)} dB` : ", exactly the original";
}

async function openOriginal(file) {
  try {
    const image = await createImageBitmap(file);
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    original = context.getImageData(0, 0, image.width, image.height);
  } catch {
    return say(`${file.name} is not a picture that this browser reads`);
  }
  paint(beside, original, original.width, original.height);
  draw();
}

/** Pixels of the picture that is shown, RGBA, for tests. */
window.shownPixels = () => opened.pictures.get(opened.shown).image;

const openFile = (file) => (file.name.endsWith(".hvc") ? open(file, file.name) : openOriginal(file));

for (const [id, use] of [["file", (file) => open(file, file.name)], ["original", openOriginal]]) {
  get(id).onchange = ({ target }) => {
    if (target.files.length) use(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  };
}
cut.oninput = () => opened.choose(cut.valueAsNumber);
document.body.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.body.ondragleave = () => document.body.classList.remove("dropping");
document.body.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  for (const file of event.dataTransfer.files) openFile(file);
};
/** Of a file, from the end of its address. */
function named(end) {
  try {
    return decodeURIComponent(end);
  } catch {
    return end; // it is no UTF-8
  }
}

function openAddress(address) {
  if (!URL.canParse(address, document.baseURI)) return say(`${address} is no address`);
  const { href, pathname } = new URL(address, document.baseURI);
  open(href, named(pathname.split("/").at(-1)));
}
get("address").onsubmit = (event) => {
  event.preventDefault();
  openAddress(new FormData(event.target).get("url"));
};

openAddress(new URLSearchParams(location.search).get("file") ?? "example.hvc");
