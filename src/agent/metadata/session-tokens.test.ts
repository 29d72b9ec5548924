import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../core/random.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { SessionTokens } from "./session-tokens.ts";

const key = new Uint8Array(32).fill(7);
const start = 1_800_000_000_000;
const make = (clock: VirtualClock, of = key, seed = 1) =>
  new SessionTokens({ key: of, clock, random: seededRandom(seed) });

describe("SessionTokens", () => {
  it("holds for as long as was asked for, and not longer", async () => {
    const clock = new VirtualClock(start);
    const tokens = make(clock);
    const token = tokens.issue("a", 60);
    expect(token).toMatch(/^[A-Za-z0-9_-]{56}$/);
    expect(tokens.secondsLeft("a", token)).toBe(60);
    await clock.advance(59_999);
    expect(tokens.secondsLeft("a", token)).toBe(1);
    await clock.advance(1);
    expect(tokens.secondsLeft("a", token)).toBeUndefined();
  });

  it("is one instance's only, and of one key", () => {
    const clock = new VirtualClock(start);
    const token = make(clock).issue("a", 60);
    expect(make(clock).secondsLeft("b", token)).toBeUndefined();
    expect(make(clock, new Uint8Array(32)).secondsLeft("a", token)).toBeUndefined();
    // A service that was restarted with its key goes on with it.
    expect(make(clock, key, 2).secondsLeft("a", token)).toBe(60);
  });

  it("gives another one each time", () => {
    const tokens = make(new VirtualClock(start));
    expect(tokens.issue("a", 60)).not.toBe(tokens.issue("a", 60));
  });

  it("accepts no token with any one bit changed, and no other text", () => {
    const tokens = make(new VirtualClock(start));
    const token = Buffer.from(tokens.issue("a", 60), "base64url");
    for (let bit = 0; bit < token.length * 8; bit++) {
      const forged = Buffer.from(token);
      forged[bit >> 3] = (forged[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(tokens.secondsLeft("a", forged.toString("base64url")), `bit ${bit}`).toBeUndefined();
    }
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.base64String({ minLength: 56, maxLength: 56 })), (text) => {
        expect(tokens.secondsLeft("a", text)).toBeUndefined();
      }),
    );
  });
});
