import { connect } from "node:net";
import { isRouted } from "../../e2e/routes.ts";
import { systemClock } from "../../src/core/clock.ts";
import { StrataError } from "../../src/core/errors.ts";

/** What every contender starts: one root tree whose init serves HTTP on port 80, with the same limits. */
export interface Workload {
  /** Plain tar of the root tree. */
  tar: string;
  kernel: string;
  initrd: string;
  commandLine: string;
  cpus: number;
  memoryMib: number;
}

/** One way to start it. Only `start` up to the first reply is timed. */
export interface Peer {
  /** As the table names it. */
  name: string;
  prepare(): Promise<void>;
  /** Returns once the address is known and asked for a start; the guest may still be booting. */
  start(): Promise<{ address: string }>;
  stop(): Promise<void>;
  dispose(): Promise<void>;
}

/** The first correct application bytes: a status line of HTTP 200 from port 80. Asks again at once until it comes. */
export async function firstReply(address: string, limitMs: number): Promise<void> {
  const end = systemClock.monotonicMs() + limitMs;
  while (systemClock.monotonicMs() < end) {
    if (isRouted(address) && (await answers(address))) return;
    await systemClock.sleep(2);
  }
  throw new StrataError("Timeout", `${address} did not answer within ${limitMs} ms`);
}

function answers(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port: 80 });
    let text = "";
    const done = (ok: boolean) => {
      socket.destroy();
      resolve(ok);
    };
    socket.setTimeout(200, () => done(false));
    socket.on("connect", () => socket.write("GET / HTTP/1.0\r\n\r\n"));
    socket.on("data", (data) => {
      text += data.toString("latin1");
      if (text.length >= 12) done(/^HTTP\/1\.[01] 200/.test(text));
    });
    socket.on("error", () => done(false));
    socket.on("end", () => done(false));
  });
}
