import { describe, expect, test } from "vitest";
import { formatAccess, parseAccessLine, parseLatencyLine, percentile } from "./access-log.ts";
import { trafficValues } from "./traffic.ts";

describe("lines of HAProxy", () => {
  test("requests", () => {
    const record = parseAccessLine('R 1795889603 648 127.0.0.1 one.bcff 200 104 311 5 "GET /a "b" HTTP/1.1"');
    expect(record).toEqual({
      at: 1_795_889_603_648,
      client: "127.0.0.1",
      server: "one.bcff",
      status: 200,
      bytes: 104,
      totalMs: 311,
      queueMs: 5,
      text: 'GET /a "b" HTTP/1.1',
    });
    expect(record && formatAccess(record, "web-1")).toBe(
      '2026-11-28T18:13:23.648Z 127.0.0.1 web-1 200 104 bytes 311 ms (5 ms waiting) "GET /a "b" HTTP/1.1"',
    );
  });

  test("connections, refusals, and what is neither", () => {
    expect(parseAccessLine("C 1 2 ::1 one.a 7 +30 0 --")).toMatchObject({
      status: undefined,
      totalMs: 30,
      bytes: 7,
    });
    expect(parseAccessLine('R 1 2 127.0.0.1 <NOSRV> 503 107 -1 -1 "GET / HTTP/1.1"')).toMatchObject({
      server: "<NOSRV>",
      totalMs: 0,
      queueMs: 0,
    });
    expect(parseAccessLine("Server targets/one is DOWN")).toBeUndefined();
    expect(parseAccessLine("R x")).toBeUndefined();
  });

  test.each([
    'R 1 2 a b 200 1 2 "GET / HTTP/1.1"',
    'R 1 2 a b 200 1 2 3 4 "GET / HTTP/1.1"',
    'R 1 2 a b 200 1 x 3 "GET / HTTP/1.1"',
    'R 1 2 a b 200 1 2 3 "GET / HT',
    'R 1 2 a b 200 1 2 3 "',
    "C 1 2 ::1 one.a 7 30 0",
    "C 1 2 ::1 one.a 7 30 0 -- more",
  ])("cut or of another form: %s", (line) => {
    expect(parseAccessLine(line)).toBeUndefined();
  });

  test("without an access log: server and time", () => {
    expect(parseLatencyLine("L one.bcff 311")).toEqual({ server: "one.bcff", totalMs: 311 });
    expect(parseLatencyLine("L <NOSRV> -1")).toEqual({ server: "<NOSRV>", totalMs: -1 });
    for (const line of ["L", "L ", "L one", "L one ", "L one x", "R 1 2", "Server targets/one is DOWN"]) {
      expect(parseLatencyLine(line)).toBeUndefined();
    }
  });
});

describe("figures", () => {
  test("percentiles by nearest rank", () => {
    const hundred = Array.from({ length: 100 }, (_, index) => index + 1);
    expect([0.5, 0.9, 0.99].map((fraction) => percentile(hundred, fraction))).toEqual([50, 90, 99]);
    expect(percentile([7], 0.5)).toBe(7);
    expect(percentile([], 0.5)).toBeUndefined();
  });

  test("rates of the whole and of servers, also after a reload", () => {
    const of = (uid: string | undefined, requests: number, errors: number) => {
      return { uid, requests, errors, sessions: 2, queue: 1 };
    };
    const before = [of(undefined, 100, 10), of("a", 1_000, 0)];
    const after = [of(undefined, 160, 12), of("a", 30, 1), of("b", 5, 0)];
    const values = trafficValues(before, after, 2_000, new Map([["", [3, 1, 2]]]), 4);
    expect(values).toMatchObject({
      requests: 30,
      errors: 1,
      queue: 5,
      sessions: 2,
      "latency-50": 2,
      "latency-99": 3,
    });
    expect(values).toMatchObject({ "requests@a": 15, "errors@a": 0.5, "requests@b": 2.5, "queue@a": 1 });
    expect(values).not.toHaveProperty("latency-50@a");
  });
});
