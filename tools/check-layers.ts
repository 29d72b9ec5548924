/** Part of the gate: prints every breach of tools/layers.ts as file:line and fails when there is one. */
import { globSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { checkFile } from "./layers.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folders = ["src", "sim", "e2e", "bench", "tools"];
const paths = globSync(
  folders.map((folder) => `${folder}/**/*.ts`),
  { cwd: root },
).sort();
const problems = paths.flatMap((path) => checkFile(path, readFileSync(`${root}/${path}`, "utf8")));
for (const { path, line, message } of problems) console.error(`${path}:${line}: ${message}`);
if (problems.length > 0) process.exitCode = 1;
else console.log(`${paths.length} files keep to the layers`);
