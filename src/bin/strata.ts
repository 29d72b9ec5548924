#!/usr/bin/env node
/** The command line's process. The rest is imported only once the cache of compiled code is on: it halves the start. */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

enableCompileCache(fileURLToPath(new URL("../../.strata/compiled", import.meta.url)));
const { main } = await import("./main.ts");
process.exitCode = await main();
