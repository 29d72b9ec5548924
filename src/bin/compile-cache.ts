import { readdirSync, statSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ownFile } from "../core/own-files.ts";

/** Set as NODE_COMPILE_CACHE, it serves from the first module on, and the compiler is never loaded. */
export const compileCacheDirectory = fileURLToPath(ownFile(".strata/compiled"));

/**
 * Keeps compiled code in the checkout: what is imported from now on starts in half the time. The returned function
 * writes down what was compiled anew and says whether anything was.
 */
export function useCompileCache(): () => boolean {
  const { directory } = enableCompileCache(compileCacheDirectory);
  const before = newestMs(directory);
  delete process.env.NODE_COMPILE_CACHE; // not for the programs that this one starts
  return () => {
    flushCompileCache();
    return newestMs(directory) > before;
  };
}

/** When the last entry was written. */
function newestMs(directory: string | undefined): number {
  if (directory === undefined) return 0;
  try {
    const names = readdirSync(directory, { recursive: true, encoding: "utf8" });
    return names.reduce((newest, name) => Math.max(newest, statSync(join(directory, name)).mtimeMs), 0);
  } catch {
    return 0;
  }
}
