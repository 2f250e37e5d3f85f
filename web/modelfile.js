/** A model file (safetensors): tensors as the coder needs them, and its configuration. */
import { HvcError } from "./errors.js";

const KINDS = { I16: Int16Array, I32: Int32Array, F32: Float32Array };

/** float16 as bits -> float32. */
function wide(bits) {
  const number = new Float32Array(1);
  const whole = new Uint32Array(number.buffer);
  return Float32Array.from(bits, (half) => {
    const exponent = (half >> 10) & 31;
    const sign = half >> 15 ? -1 : 1;
    if (!exponent) return (sign * (half & 1023)) / 2 ** 24;
    whole[0] = ((half >> 15) << 31) | ((exponent + 112) << 23) | ((half & 1023) << 13);
    return number[0];
  });
}

/** @returns {{config: object, tensors: Object<string, {data, shape}>}} */
export function parseModel(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = Number(view.getBigUint64(0, true));
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(head)) {
    if (name === "__metadata__") continue;
    const content = bytes.slice(8 + size + start, 8 + size + end).buffer;
    if (dtype === "F16") tensors[name] = { data: wide(new Uint16Array(content)), shape };
    else if (dtype in KINDS) tensors[name] = { data: new KINDS[dtype](content), shape };
    else throw new HvcError(`a model with ${dtype} numbers is not known here`);
  }
  return { config: JSON.parse(head.__metadata__.hvcodec).config, tensors };
}
