/** The part of the conformance suite about `exec` and `console`, for drivers that have them. */
import type { Readable } from "node:stream";
import { describe, expect, test } from "vitest";
import { type Bench, type GuestDriverHandle, noSignal, until } from "./conformance-bench.ts";
import type { ExecRequest, ExecSession } from "./driver.ts";

/** Runs a command in a new guest; undefined when the driver cannot. */
async function runIn(
  bench: Bench,
  request: Partial<ExecRequest> & { command: string[] },
  signal = noSignal,
): Promise<ExecSession | undefined> {
  const driver = await bench.driver();
  const { abilities } = await driver.fingerprint(noSignal);
  if (!driver.exec || (request.tty && !abilities.includes("exec-tty"))) return undefined;
  const { handle } = await bench.running();
  return (await bench.driver()).exec?.run(handle, { env: {}, ...request }, signal);
}

/** Every test image has these programs: cat, echo, env, false, sleep, stty. */
export function describeExec(get: () => Bench): void {
  describe("exec", () => {
    test("gives a command's output and status", async (context) => {
      const session = await runIn(get(), { command: ["echo", "hello", "a  b", "$HOME"] });
      if (!session) return context.skip();
      session.stdin.end();
      expect(await outcome(session)).toEqual({ stdout: "hello a  b $HOME\n", stderr: "", status: 0 });
    });

    test("gives the status of a command that fails or does not exist", async (context) => {
      const bench = get();
      const driver = await bench.driver();
      if (!driver.exec) return context.skip();
      const { handle } = await bench.running();
      const failing = await driver.exec.run(handle, { command: ["false"], env: {} }, noSignal);
      expect((await outcome(failing)).status).toBe(1);
      const missing = await driver.exec.run(handle, { command: ["no-such-command"], env: {} }, noSignal);
      expect((await outcome(missing)).status).toBe(127);
    });

    test("passes standard input on, to its end, byte for byte", async (context) => {
      const session = await runIn(get(), { command: ["cat"] });
      if (!session) return context.skip();
      const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, index) => index % 256));
      const reading = collect(session.stdout);
      session.stdin.end(bytes);
      expect((await reading).equals(bytes)).toBe(true);
      expect(await session.exit).toBe(0);
    });

    test("gives the environment that was asked for and nothing of the host's", async (context) => {
      process.env.STRATA_HOST_SECRET = "must not leak";
      const session = await runIn(get(), { command: ["env"], env: { GREETING: "a b=c" } });
      delete process.env.STRATA_HOST_SECRET;
      if (!session) return context.skip();
      const { stdout } = await outcome(session);
      expect(stdout.split("\n")).toContain("GREETING=a b=c");
      expect(stdout).toMatch(/^PATH=/m);
      expect(stdout).not.toContain("STRATA_HOST_SECRET");
    });

    test("kills the command when the signal aborts", async (context) => {
      const cancel = new AbortController();
      const session = await runIn(get(), { command: ["sleep", "1000"] }, cancel.signal);
      if (!session) return context.skip();
      cancel.abort();
      expect(await session.exit).not.toBe(0);
    });

    test("is Unavailable while the guest does not run", async (context) => {
      const bench = get();
      const driver = await bench.driver();
      if (!driver.exec) return context.skip();
      const { handle } = await bench.created();
      await expect(driver.exec.run(handle, { command: ["true"], env: {} }, noSignal)).rejects.toMatchObject({
        code: "Unavailable",
      });
    });
  });
}

export function describeTerminal(get: () => Bench): void {
  describe("exec on a terminal", () => {
    test("runs on a terminal of the size asked for", async (context) => {
      const session = await runIn(get(), { command: ["stty", "size"], tty: { columns: 100, rows: 40 } });
      if (!session) return context.skip();
      const { stdout, stderr, status } = await outcome(session);
      expect({ stdout: stdout.trim(), stderr, status }).toEqual({ stdout: "40 100", stderr: "", status: 0 });
    });

    test("what is typed at once reaches the command on a terminal", async (context) => {
      const session = await runIn(get(), { command: ["cat"], tty: { columns: 80, rows: 24 } });
      if (!session) return context.skip();
      session.stdin.write("typed early\r");
      let text = "";
      session.stdout.on("data", (chunk) => {
        text += chunk;
      });
      // Once as the terminal's echo, once from the command.
      await until(
        () => text.split("typed early").length === 3,
        get().harness.timeouts.readyMs,
        "the line, twice",
      );
      session.stdin.write("\u0004");
      expect(await session.exit).toBe(0);
    });
  });
}

export function describeConsole(get: () => Bench): void {
  describe("console", () => {
    test("keeps what was printed, and follows what comes", async (context) => {
      const bench = get();
      if (!(await bench.driver()).console) return context.skip();
      const { handle } = await bench.running();
      const expected = bench.harness.consoleText;
      if (expected === undefined) return context.skip();
      const following = new AbortController();
      const { console } = await bench.driver();
      let text = "";
      const reading = (async () => {
        const log = console?.log(handle, { tailBytes: 65_536, follow: true }, following.signal);
        for await (const chunk of log ?? []) text += Buffer.from(chunk).toString();
      })();
      const occurrences = () => text.split(expected).length - 1;
      await until(() => occurrences() === 1, bench.harness.timeouts.readyMs, `"${expected}" in the log`);

      await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
      await (await bench.driver()).start(handle, noSignal);
      await until(() => occurrences() === 2, bench.harness.timeouts.readyMs, `"${expected}" after a restart`);
      following.abort();
      await reading;
      expect(await tail(bench, handle, 3)).toHaveLength(3);
      expect(await tail(bench, handle, 0)).toHaveLength(0);
    });

    test("one may attach at a time", async (context) => {
      const bench = get();
      const { console } = await bench.driver();
      if (!console) return context.skip();
      const { handle } = await bench.running();
      const stream = await console.attach(handle, noSignal);
      await expect(console.attach(handle, noSignal)).rejects.toMatchObject({ code: "Conflict" });
      stream.destroy();
      const cancel = new AbortController();
      await until(
        async () => {
          const again = await console.attach(handle, cancel.signal).catch(() => undefined);
          return again !== undefined;
        },
        bench.harness.timeouts.readyMs,
        "the console being free again",
      );
      cancel.abort();
    });

    test("cannot be attached while the guest does not run", async (context) => {
      const bench = get();
      const { console } = await bench.driver();
      if (!console) return context.skip();
      const { handle } = await bench.created();
      await expect(console.attach(handle, noSignal)).rejects.toMatchObject({ code: "Unavailable" });
    });
  });
}

async function tail(bench: Bench, handle: GuestDriverHandle, tailBytes: number) {
  const chunks: Uint8Array[] = [];
  const log = (await bench.driver()).console?.log(handle, { tailBytes, follow: false }, noSignal);
  for await (const chunk of log ?? []) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function outcome(session: ExecSession): Promise<{ stdout: string; stderr: string; status: number }> {
  const [stdout, stderr, status] = await Promise.all([
    collect(session.stdout),
    collect(session.stderr),
    session.exit,
  ]);
  return { stdout: stdout.toString(), stderr: stderr.toString(), status };
}

async function collect(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
