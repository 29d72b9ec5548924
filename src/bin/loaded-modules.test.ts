import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/** What a process of its own has loaded of Node's own modules after importing these. */
function loadedBy(...modules: string[]): string[] {
  const urls = modules.map((module) => new URL(module, import.meta.url).href);
  const script = `for (const url of ${JSON.stringify(urls)}) await import(url);
    console.log(JSON.stringify(process.moduleLoadList));`;
  const args = ["--input-type=module", "--eval", script];
  const root = fileURLToPath(new URL("../..", import.meta.url));
  return JSON.parse(execFileSync(process.execPath, args, { cwd: root, encoding: "utf8" })) as string[];
}

const undici = "NativeModule internal/deps/undici/undici";

test("Node's http imported as it usually is loads a second HTTP client", () => {
  expect(loadedBy("node:http")).toContain(undici);
});

test("the command line loads only one, and so does the daemon (daemon-bundle.test.ts)", () => {
  const loaded = loadedBy("./main.ts");
  expect(loaded).toContain("NativeModule http");
  expect(loaded).not.toContain(undici);
});
