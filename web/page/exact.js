/**
 * Arithmetic that gives the same bits on every machine: IEEE 754 float32, one operation after the other
 * (docs/format.md, "Arithmetic"). JavaScript computes in float64; rounding every result to float32 gives
 * what float32 would, since float64 has more than twice its digits.
 */
export const f32 = Math.fround;

const HALFWAY = 1.5 * 2 ** 52;
const LN2 = f32(Math.LN2);
const PER_LN2 = f32(1 / Math.LN2);
const MINUS_PER_LN2 = f32(-1 / Math.LN2);
const [L0, L1, L2, L3] = [1.40815007, 4.45325453, 5.52538099, 3.59235683].map(f32);
const [E0, E1, E2, E3, E4] = [0.00132609, 0.00967018, 0.05550712, 0.24022224, 0.693147].map(f32);

const number = new Float32Array(1);
const bits = new Int32Array(number.buffer);

/** The nearest integer, halves to even. */
export const rint = (x) => x + HALFWAY - HALFWAY;

export const clamp = (x, low, high) => (x < low ? low : x > high ? high : x);

/** Base 2 logarithm of positive normal numbers. */
export function log2(x) {
  number[0] = x;
  const exponent = (bits[0] >>> 23) - 126;
  bits[0] = (bits[0] & 0x7fffff) | 0x3f000000;
  const m = number[0];
  const inner = f32(f32(f32(f32(f32(m * L0) - L1) * m) + L2) * m);
  const rest = f32(f32(m - f32(0.5)) * f32(inner - L3));
  return f32(exponent + f32(f32(m - 1) * f32(2 + rest)));
}

/** 2^x; x is clamped to -120 .. 120. */
export function exp2(x) {
  x = clamp(x, -120, 120);
  const whole = rint(x);
  const f = f32(x - whole);
  const half = f32(f32(f32(f32(f32(f * E0) + E1) * f) + E2) * f);
  const p = f32(f32(f32(f32(f32(half + E3) * f) + E4) * f) + 1);
  bits[0] = (whole + 127) << 23;
  return f32(p * number[0]);
}

/** Natural logarithm. */
export const log = (x) => f32(log2(x) * LN2);

/** e^x. */
export const exp = (x) => exp2(f32(x * PER_LN2));

/** 1 / (1 + e^-x). */
export const sigmoid = (x) => f32(1 / f32(1 + exp2(f32(x * MINUS_PER_LN2))));

/** Bits that are worth a natural unit of information. */
export const inBits = (nats) => f32(nats * PER_LN2);

/** Probability of everything below `edge` under a mixture of a logistic of this scale and one `ratio`
 * times as wide, which has this weight. */
export function below(edge, scale, ratio, weight) {
  const at = f32(edge / scale);
  const narrow = f32(f32(1 - weight) * sigmoid(at));
  return f32(narrow + f32(weight * sigmoid(f32(at / ratio))));
}
