import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { type Answer, LoadGenerator } from "./load-generator.ts";

let server: Server | undefined;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function serve(answer: Parameters<typeof createServer>[1]): Promise<string> {
  server = createServer(answer ?? (() => {}));
  await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

/** Ends once so many answers have come. */
async function load(url: string, count: number, timeoutMs = 5_000): Promise<[LoadGenerator, Answer[]]> {
  const enough = new AbortController();
  const generator = new LoadGenerator({
    url,
    clock: systemClock,
    rate: () => 400,
    timeoutMs,
    identify: (body) => /"instance":"([^"]+)"/.exec(body)?.[1],
  });
  const answers: Answer[] = [];
  generator.onAnswer = (answer) => {
    answers.push(answer);
    if (answers.length >= count) enough.abort();
  };
  await generator.run(enough.signal);
  return [generator, answers];
}

describe("a load generator", () => {
  test("says who answered, and waits for all answers", async () => {
    const url = await serve((_request, response) => response.end('{"instance":"web-1"}'));
    const [generator, answers] = await load(url, 40);
    expect(answers).toHaveLength(generator.sent);
    expect(generator.failed).toBe(0);
    expect(answers.every(({ status, by }) => status === 200 && by === "web-1")).toBe(true);
  });

  test("counts what is refused, broken off or too late as failed", async () => {
    let count = 0;
    const url = await serve((request, response) => {
      count++;
      if (count % 3 === 0) response.writeHead(503).end();
      else if (count % 3 === 1) request.socket.destroy();
      // And every third one is never answered.
    });
    const [generator, answers] = await load(url, 30, 300);
    expect(answers).toHaveLength(generator.sent);
    expect(generator.failed).toBe(generator.sent);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([0, 503]));
  });

  test("goes on sending while nothing is answered", async () => {
    const waiting: (() => void)[] = [];
    const url = await serve((_request, response) => {
      waiting.push(() => response.end("{}"));
      if (waiting.length === 20) for (const answer of waiting) answer();
      else if (waiting.length > 20) response.end("{}");
    });
    const [generator] = await load(url, 20);
    expect(generator.failed).toBe(0);
    expect(generator.sent).toBeGreaterThanOrEqual(20);
  });
});
