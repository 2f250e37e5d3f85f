/** Planes -> what a canvas takes. */
import { HvcError } from "./errors.js";

/**
 * @param {ArrayLike<number>} planes Red, green and blue, with sides rounded up to multiples of 64.
 * @param {Uint8Array|null} alpha
 * @returns {{width, height, pixels: Uint8ClampedArray}} RGBA.
 */
export function canvasPixels(planes, { width, height, colour }, alpha) {
  const wide = Math.ceil(width / 64) * 64;
  const size = planes.length / 3;
  const pixels = new Uint8ClampedArray(4 * width * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let at = y * wide; at < y * wide + width; at++, to += 4) {
      let [r, g, b] = [planes[at], planes[size + at], planes[2 * size + at]];
      if (colour === "grey") r = g = b = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
      pixels[to] = r;
      pixels[to + 1] = g;
      pixels[to + 2] = b;
      pixels[to + 3] = alpha ? alpha[to / 4] : 255;
    }
  }
  return { width, height, pixels };
}

/** The alpha plane, which is a grey PNG in the metadata. */
export async function alphaOf({ alpha, width, height }) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const image = await createImageBitmap(new Blob([alpha], { type: "image/png" }), options).catch(() => null);
  if (image?.width !== width || image.height !== height) throw new HvcError("the alpha plane does not fit the picture");
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  return canvas.getImageData(0, 0, width, height).data.filter((_, at) => at % 4 === 0);
}
