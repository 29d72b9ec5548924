import { readdirSync } from "node:fs";
import { enableCompileCache, flushCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

/** Set as NODE_COMPILE_CACHE, it serves from the first module on, and the compiler is never loaded. */
export const compileCacheDirectory = fileURLToPath(new URL("../../.strata/compiled", import.meta.url));

/**
 * Keeps compiled code in the checkout: what is imported from now on starts in half the time. The returned function
 * writes down what was compiled anew and says whether anything was.
 */
export function useCompileCache(): () => boolean {
  const { directory } = enableCompileCache(compileCacheDirectory);
  const before = entries(directory);
  delete process.env.NODE_COMPILE_CACHE; // not for the programs that this one starts
  return () => {
    flushCompileCache();
    return entries(directory) > before;
  };
}

function entries(directory: string | undefined): number {
  try {
    return directory === undefined ? 0 : readdirSync(directory, { recursive: true }).length;
  } catch {
    return 0;
  }
}
