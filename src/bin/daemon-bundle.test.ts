import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ownFile } from "../core/own-files.ts";
import { commandOf } from "./daemon-bundle.ts";
import { stackInSource } from "./source-stack.ts";

const directory = fileURLToPath(ownFile(`.strata/bundle-of-test-${process.pid}`));
const first = pathToFileURL(`${directory}/daemon-main.mjs`).href;
beforeAll(() => {
  const maker = ownFile("src/bin/daemon-bundle.ts").href;
  const script = `(await import("${maker}")).makeBundle("${directory}")`;
  const make = [process.execPath, "--input-type=module", "--eval", script];
  execFileSync("sh", ["-c", 'umask 0; exec "$@"', "sh", ...make]);
}, 60_000);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function inProcess(script: string): unknown {
  const args = ["--input-type=module", "--eval", script];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" }));
}

test.each(["pretended", "real"])("the joined daemon of a %s host has all its parts", (host) => {
  const loaded = inProcess(`const { loadParts, runDaemon } = await import("${first}");
    await loadParts(${host === "pretended"});
    console.log(JSON.stringify([typeof runDaemon, ...process.moduleLoadList]))`) as string[];
  expect(loaded).toContain("function");
  expect(loaded).toContain("NativeModule http");
  expect(loaded).not.toContain("NativeModule internal/deps/undici/undici");
});

test("esbuild runs as the script that its package has, and as the binary that its installation may leave", () => {
  const scratch = mkdtempSync(`${tmpdir()}/strata-esbuild-`);
  try {
    const path = `${scratch}/esbuild`;
    writeFileSync(path, "#!/usr/bin/env node\n");
    expect(commandOf(path)).toEqual([process.execPath, path]);
    writeFileSync(path, Buffer.from([0x7f, 0x45, 0x4c, 0x46]));
    expect(commandOf(path)).toEqual([path]);
  } finally {
    rmSync(scratch, { recursive: true });
  }
});

test("nobody else may write to what root runs, whatever the umask", () => {
  const paths = [directory, ...readdirSync(directory).map((name) => `${directory}/${name}`)];
  expect(paths.filter((path) => (statSync(path).mode & 0o022) !== 0)).toEqual([]);
});

test("the text of joined modules takes one byte a letter in memory", () => {
  const modules = readdirSync(directory).filter((name) => name.endsWith(".mjs"));
  expect(modules.length).toBeGreaterThan(5);
  for (const name of modules)
    expect(readFileSync(`${directory}/${name}`, "latin1")).not.toMatch(/[\x80-\xff]/);
});

test("zod's texts in other languages are left out: all modules import * as z", () => {
  const dutch = "Ongeldige invoer";
  expect(readFileSync(ownFile("node_modules/zod/v4/locales/nl.js"), "utf8")).toContain(dutch);
  for (const name of readdirSync(directory)) {
    expect(readFileSync(`${directory}/${name}`, "utf8")).not.toContain(dutch);
  }
});

test("an error in a joined module tells the source's line", () => {
  const stack = inProcess(`const { runDaemon } = await import("${first}");
    process.env.STRATA_HTTPS_PORT = "none";
    console.log(JSON.stringify(await runDaemon().catch((error) => error.stack)))`) as string;
  expect(stack).not.toContain("settings.ts");
  expect(stackInSource(stack)).toMatch(/readSettings \(file:\/\/.*\/src\/bin\/settings\.ts:\d+:\d+\)/);
});
