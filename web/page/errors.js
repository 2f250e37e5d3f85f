/** Everything that a damaged file or a missing part can cause; its text is one clear line. */
export class HvcError extends Error {}
