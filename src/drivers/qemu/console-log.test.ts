import { appendFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { keepTrimmed, keptBytes, readConsoleLog, trimConsoleLog } from "./console-log.ts";

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "console-log-"));
  path = join(directory, "console.log");
});
afterEach(() => rmSync(directory, { recursive: true }));

async function tail(tailBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  const { signal } = new AbortController();
  for await (const chunk of readConsoleLog(path, { tailBytes, follow: false, clock: systemClock }, signal)) {
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

describe("readConsoleLog", () => {
  it("gives the end, and nothing of a log that is not there", async () => {
    expect(await tail(10)).toBe("");
    writeFileSync(path, "0123456789");
    expect(await tail(3)).toBe("789");
    expect(await tail(0)).toBe("");
    expect(await tail(1_000_000)).toBe("0123456789");
  });

  it("follows what is appended until the signal aborts", async () => {
    writeFileSync(path, "old ");
    const abort = new AbortController();
    let text = "";
    const options = { tailBytes: 100, follow: true, clock: systemClock };
    for await (const chunk of readConsoleLog(path, options, abort.signal)) {
      text += Buffer.from(chunk).toString();
      if (text.endsWith("old ")) appendFileSync(path, "new ");
      if (text.endsWith("new ")) appendFileSync(path, "last");
      if (text.endsWith("last")) abort.abort();
    }
    expect(text).toBe("old new last");
  });
});

describe("trimConsoleLog", () => {
  it("gives the beginning of a large log back and keeps every position", async () => {
    const line = `${"x".repeat(1023)}\n`;
    writeFileSync(path, line.repeat(6 * 1024));
    appendFileSync(path, "the end");
    const { size } = statSync(path);
    await trimConsoleLog(path);
    const after = statSync(path);
    expect(after.size).toBe(size);
    expect(after.blocks * 512).toBeLessThan(keptBytes + 64 * 1024);
    const kept = await tail(keptBytes);
    expect(kept).toHaveLength(keptBytes);
    expect(kept).not.toContain("\0");
    expect(kept.endsWith("the end")).toBe(true);
  });

  it("leaves a small log alone", async () => {
    await trimConsoleLog(path);
    writeFileSync(path, "small");
    await trimConsoleLog(path);
    expect(await tail(100)).toBe("small");
  });
});

describe("keepTrimmed", () => {
  it("looks once in a while, and only after something was printed", async () => {
    writeFileSync(path, "");
    const clock = new VirtualClock();
    const errors: unknown[] = [];
    const end = keepTrimmed(path, clock, (error) => errors.push(error));
    expect(clock.nextAt()).toBeUndefined();
    for (let round = 0; round < 2; round++) {
      appendFileSync(path, "x".repeat(6 * 1024 * 1024));
      while (clock.nextAt() === undefined) await new Promise((resolve) => setImmediate(resolve));
      await clock.advance(10_000);
      while (statSync(path).blocks * 512 > 2 * keptBytes)
        await new Promise((resolve) => setImmediate(resolve));
    }
    end();
    expect(errors).toEqual([]);
    await clock.advance(60_000);
    expect(clock.nextAt()).toBeUndefined();
  });
});
