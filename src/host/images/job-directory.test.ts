import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockFile, tryLockFile } from "./file-lock.ts";
import { openJob, sweepJobs } from "./job-directory.ts";

let tmp: string;
const signal = new AbortController().signal;

beforeEach(() => {
  tmp = mkdtempSync(join(tmpdir(), "strata-jobs-"));
});
afterEach(() => rmSync(tmp, { recursive: true, force: true }));

describe("lockFile", () => {
  it("lets one in at a time, in this process too", async () => {
    const path = join(tmp, "lock");
    const first = await lockFile(path, signal);
    expect(await tryLockFile(path)).toBeUndefined();
    let entered = false;
    const second = lockFile(path, signal).then((lock) => {
      entered = true;
      return lock;
    });
    expect(entered).toBe(false);
    await first.release();
    await first.release();
    await (await second).release();
    expect(entered).toBe(true);
  });

  it("stops waiting when asked to", async () => {
    const path = join(tmp, "lock");
    await using _held = await lockFile(path, signal);
    const controller = new AbortController();
    const waiting = lockFile(path, controller.signal);
    controller.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
  });

  it("is free again when its holder is killed", async () => {
    const path = join(tmp, "lock");
    const source = new URL("./file-lock.ts", import.meta.url).href;
    const program = `
      const { lockFile } = await import(${JSON.stringify(source)});
      globalThis.lock = await lockFile(${JSON.stringify(path)}, new AbortController().signal);
      console.log("locked");
      setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ["--input-type=module", "--eval", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(holder.stdout, "data");
    expect(await tryLockFile(path)).toBeUndefined();
    holder.kill("SIGKILL");
    const lock = await lockFile(path, signal);
    await lock.release();
  });
});

describe("job directories", () => {
  it("vanish with their lock when done", async () => {
    {
      await using job = await openJob(tmp, signal);
      writeFileSync(join(job.path, "file"), "x");
      expect(readdirSync(tmp)).toHaveLength(2);
    }
    expect(readdirSync(tmp)).toEqual([]);
  });

  it("are swept away when nobody holds them, and only then", async () => {
    await using job = await openJob(tmp, signal);
    mkdirSync(join(tmp, "left/behind"), { recursive: true });
    mkdirSync(join(tmp, "locked-once"));
    writeFileSync(join(tmp, "locked-once.lock"), "");
    await sweepJobs(tmp);
    expect(
      readdirSync(tmp)
        .map((name) => join(tmp, name))
        .sort(),
    ).toEqual([job.path, `${job.path}.lock`]);
  });
});
