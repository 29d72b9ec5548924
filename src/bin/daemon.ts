/**
 * The daemon's first module. A process that has compiled TypeScript keeps the compiler in memory for good (about 30 MiB):
 * when the cache was cold, the process writes it and begins anew, with the same pid, from the cache.
 */
import { compileCacheDirectory, useCompileCache } from "./compile-cache.ts";

const begunAnew = "STRATA_DAEMON_BEGUN_ANEW";

const wasCold = useCompileCache();
const { runDaemon } = await import("./daemon-main.ts");
// What is imported later, when it is needed, goes into the cache now.
await import("../client/channel.ts");
if (process.env.STRATA_FAKE === "1") await import("./fake-host-parts.ts");
else await import("./real-host-parts.ts");
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
const { memoryEnvironment } = await import("./daemon-process.ts");
// They have taken effect, and are not for the programs that this one starts.
for (const name of [begunAnew, ...Object.keys(memoryEnvironment)]) delete process.env[name];
await runDaemon();
