/**
 * The daemon's first module. A process that has compiled TypeScript keeps the compiler in memory for good (about 30 MiB):
 * when the cache was cold, the process writes it and begins anew, with the same pid, from the cache.
 */
import { compileCacheDirectory, useCompileCache } from "./compile-cache.ts";
import { bundledDaemon } from "./daemon-bundle.ts";

const begunAnew = "STRATA_DAEMON_BEGUN_ANEW";

const wasCold = useCompileCache();
// For debuggers, which stop in source files.
const fromSource = process.env.STRATA_FROM_SOURCE === "1";
const first = (fromSource ? undefined : bundledDaemon()) ?? "./daemon-main.ts";
const { loadParts, runDaemon } = (await import(first)) as typeof import("./daemon-main.ts");
// What is imported later, when it is needed, goes into the cache now.
await loadParts(process.env.STRATA_FAKE === "1");
const times = Number(process.env[begunAnew] ?? 0);
// Twice at most: this very module gets into the cache only when the cache is on before it.
if (wasCold() && process.execve && times < 2) {
  const argv = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  process.execve(process.execPath, argv, {
    ...process.env,
    NODE_COMPILE_CACHE: compileCacheDirectory,
    [begunAnew]: String(times + 1),
  });
}
delete process.env[begunAnew];
await runDaemon();
