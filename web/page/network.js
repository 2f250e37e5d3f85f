/** The exact network of a model: ONNX graphs (docs/onnx.md) in onnxruntime-web. */
import * as ort from "./vendor/ort.wasm.min.mjs";
import { fetched } from "./fetched.js";
import { HvcError } from "./errors.js";
import { Windows } from "./refinement.js";
import { Tables } from "./tables.js";

const MOST_THREADS = 4;
const OPTIONS = {
  executionProviders: ["wasm"],
  graphOptimizationLevel: "disabled", // that is done when the page is built
  // Memory of one graph is for the next one too.
  enableCpuMemArena: false,
  enableMemPattern: false,
};

export const tensor = (kind, data, dims) => new ort.Tensor(kind, data, dims);
export const floats = (data, dims) => tensor("float32", data, dims);

/** Start the runtime. */
async function start() {
  ort.env.wasm.wasmBinary = await fetched("vendor/ort-wasm-simd-threaded.wasm.gz");
  ort.env.wasm.wasmPaths = { mjs: new URL("vendor/ort-wasm-simd-threaded.mjs", import.meta.url).href };
  // One core is for the compiler, and threads that wait for a busy one cost more than they bring.
  const cores = self.crossOriginIsolated ? navigator.hardwareConcurrency - 1 : 1;
  ort.env.wasm.numThreads = Math.min(Math.max(cores, 1), MOST_THREADS);
}

let runtime = null;
const networks = {};

/**
 * A model by the id that files carry. Its graphs are made ready in the order in which they are run, while
 * the first ones may run already.
 */
export function networkOf(model) {
  runtime ??= kept(start(), () => (runtime = null));
  return (networks[model] ??= kept(open(`models/${model}`, model), () => delete networks[model]));
}

/** A promise, and what to do if it fails, so that the next one who wants it tries again. */
function kept(promise, forget) {
  promise.catch(forget);
  return promise;
}

async function open(folder, model) {
  const missing = () => {
    throw new HvcError(`the file needs model ${model}, which is not part of this page`);
  };
  const [about, counts] = await Promise.all([
    fetched(`${folder}/model.json.gz`).catch(missing),
    fetched(`${folder}/counts.bin.gz`).catch(missing),
    runtime,
  ]);
  return new Network(folder, JSON.parse(new TextDecoder().decode(about)), new Int32Array(counts.buffer));
}

/** Let messages and chunks that wait come in. */
function turn() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

export class Network {
  constructor(folder, about, counts) {
    this.about = about;
    this.tables = new Tables(counts, about.reaches);
    this.windows = new Windows(this.tables, about.ratios, about.weights);
    this.folder = folder;
    this.sessions = {};
    const names = [...about.passes.map(({ graph }) => graph), "planes", "picture"];
    names.reduce((before, name) => this.session(name, before), null);
  }

  /** A graph, ready to run, after another one. */
  session(name, before = null) {
    const bytes = fetched(`${this.folder}/${name}.onnx.gz`);
    const made = Promise.all([bytes, before]).then(([graph]) => ort.InferenceSession.create(graph, OPTIONS));
    made.catch(() => {}); // whoever runs it hears of it
    return (this.sessions[name] = made);
  }

  /** Run a graph. */
  async run(name, inputs, outputs) {
    const session = await (this.sessions[name] ?? this.session(name));
    await turn();
    return session.run(inputs, outputs);
  }
}
