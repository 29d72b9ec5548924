#!/usr/bin/env node
/** The command line's process. The rest is imported only once the cache of compiled code is on. */
import { useCompileCache } from "./compile-cache.ts";

useCompileCache();
const { main } = await import("./main.ts");
process.exitCode = await main();
