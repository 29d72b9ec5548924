import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BuildLogs } from "./build-log.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-logs-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

async function write(logs: BuildLogs, name: string, lines: readonly string[]): Promise<void> {
  await using log = await logs.open(name);
  for (const line of lines) log.add(line);
}

async function text(logs: BuildLogs, name: string): Promise<string | undefined> {
  const bytes = await logs.read(name);
  if (!bytes) return undefined;
  const chunks: Uint8Array[] = [];
  for await (const chunk of bytes) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test("a log is what was added, in order, and begins anew with the next build", async () => {
  const logs = new BuildLogs(join(directory, "logs"));
  expect(await text(logs, "a")).toBeUndefined();
  await write(logs, "a", ["one", "two"]);
  expect(await text(logs, "a")).toBe("one\ntwo\n");
  await write(logs, "a", ["three"]);
  expect(await text(logs, "a")).toBe("three\n");
  await logs.remove("a");
  await logs.remove("a");
  expect(await text(logs, "a")).toBeUndefined();
});

test("of a long one, the last lines stay, and no more than twice the limit", async () => {
  const logs = new BuildLogs(directory, 1000);
  const lines = Array.from({ length: 5000 }, (_, index) => `line ${index}`);
  await write(logs, "a", lines);
  const kept = (await text(logs, "a")) ?? "";
  expect(kept.length).toBeLessThanOrEqual(2000);
  expect(kept.length).toBeGreaterThan(1000);
  expect(`${lines.join("\n")}\n`.endsWith(kept)).toBe(true);
  await write(logs, "a", ["anew"]);
  expect(await text(logs, "a")).toBe("anew\n");
});

test("lines are in order however many come at once, also while the log gives way to a new one", async () => {
  const logs = new BuildLogs(directory, 3000);
  const lines = Array.from({ length: 600 }, (_, index) => `line ${index}`);
  {
    await using log = await logs.open("a");
    for (const [index, line] of lines.entries()) {
      log.add(line);
      if (index % 7 === 0) await Promise.resolve();
    }
  }
  const kept = (await text(logs, "a")) ?? "";
  expect(kept.length).toBeGreaterThan(3000);
  expect(`${lines.join("\n")}\n`.endsWith(kept)).toBe(true);
});

test("the newest 200 stay", async () => {
  const logs = new BuildLogs(directory);
  for (let index = 0; index < 203; index++) await write(logs, `log-${index}`, ["x"]);
  expect(readdirSync(directory)).toHaveLength(200);
  expect(await text(logs, "log-202")).toBe("x\n");
});

test("a name leads nowhere else", async () => {
  const logs = new BuildLogs(directory);
  await expect(logs.open("../x")).rejects.toThrow(TypeError);
});
