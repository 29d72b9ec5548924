import { describe, expect, it } from "vitest";
import { Generations } from "./generations.ts";

describe("Generations", () => {
  it("gives no number twice, not even to a process that comes later", () => {
    let uptimeMs = 5_000;
    const first = new Generations(() => uptimeMs);
    const seen = [first.next(), first.next()];
    uptimeMs += 500;
    seen.push(first.next());
    uptimeMs += 500;
    const second = new Generations(() => uptimeMs);
    seen.push(second.next(), second.next());
    expect(seen).toEqual([50, 51, 55, 60, 61]);
  });

  it("goes by the machine's clock, finer than a second", () => {
    const [first, second] = [new Generations().next(), new Generations().next()];
    expect(first).toBeGreaterThan(0);
    expect(second - first).toBeLessThan(10);
  });
});
