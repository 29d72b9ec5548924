import { StrataError } from "../../core/errors.ts";

/**
 * What a guest may have made before its root is called unreadable: all of it is in memory at once. `textBytes`: of paths
 * and what is told of them besides numbers. `pathBytes`: the kernel's PATH_MAX.
 */
export const driftLimits = {
  depth: 250,
  entries: 300_000,
  textBytes: 64 * 1024 ** 2,
  pathBytes: 4096,
} as const;

/** Of one reading. Every method @throws Unsupported with the limit. */
export class DriftBudget {
  #entries = 0;
  #textBytes = 0;

  /** A path was found. */
  path(path: string): void {
    const bytes = Buffer.byteLength(path);
    if (bytes > driftLimits.pathBytes) throw tooMuch(`a path of more than ${driftLimits.pathBytes} bytes`);
    if (++this.#entries > driftLimits.entries) throw tooMuch(`more than ${driftLimits.entries} paths`);
    this.text(bytes);
  }

  /** Something of this length is told of a path. */
  text(bytes: number): void {
    this.#textBytes += bytes;
    if (this.#textBytes > driftLimits.textBytes) {
      throw tooMuch(
        `paths, link targets and capabilities of more than ${driftLimits.textBytes / 1024 ** 2} MiB`,
      );
    }
  }

  depth(depth: number): void {
    if (depth > driftLimits.depth) throw tooMuch(`directories more than ${driftLimits.depth} deep`);
  }
}

export function tooMuch(what: string): StrataError {
  return new StrataError("Unsupported", `the instance's root has ${what}, which is more than is compared`);
}
