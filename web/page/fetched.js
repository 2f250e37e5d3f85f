/** Parts of the page as bytes; those that are kept compressed are decompressed. */
import { HvcError } from "./errors.js";

export async function fetched(path) {
  const response = await fetch(new URL(path, import.meta.url));
  if (!response.ok) throw new HvcError(`${path} is not here`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // Some servers decompress .gz themselves.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
