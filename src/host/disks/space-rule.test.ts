import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { boundBytes, judgeSpace, looksMs, reserveBytes } from "./space-rule.ts";

const MiB = 1024 ** 2;
const GiB = 1024 * MiB;
const space = (change: object) => ({
  capacityBytes: 100 * GiB,
  freeBytes: 50 * GiB,
  volumes: 1,
  mayTakeBytes: 200 * GiB,
  ...change,
});

describe("writers", () => {
  test.each([
    ["are left alone with much space, and looked at seldom", {}, false, false, looksMs.most],
    ["are left alone without volumes", { volumes: 0, freeBytes: 0 }, false, false, looksMs.most],
    [
      "are looked at more often the nearer the reserve is",
      { freeBytes: 576 * MiB + 256 * MiB },
      false,
      false,
      125,
    ],
    [
      "are looked at as often as can be just before it",
      { freeBytes: 577 * MiB },
      false,
      false,
      looksMs.least,
    ],
    ["wait at the reserve", { freeBytes: 576 * MiB }, false, true, looksMs.held],
    ["go on waiting just above it", { freeBytes: 700 * MiB }, true, true, looksMs.held],
    ["go on with a quarter more", { freeBytes: 720 * MiB }, true, false, 70],
    [
      "never wait for what they cannot take",
      { freeBytes: 100 * MiB, mayTakeBytes: 99 * MiB },
      true,
      false,
      looksMs.idle,
    ],
    [
      "wait, when that is not so any more",
      { freeBytes: 100 * MiB, mayTakeBytes: 100 * MiB },
      false,
      true,
      looksMs.held,
    ],
  ])("%s", (_, change, held, hold, lookAgainMs) => {
    expect(judgeSpace(space(change), held)).toEqual({ hold, lookAgainMs });
  });

  test("of a small file system have most of it", () => {
    expect(reserveBytes(300 * MiB, 3)).toBe(50 * MiB);
    expect(boundBytes(300 * MiB)).toBe(18.75 * MiB);
    expect(boundBytes(10 * MiB)).toBe(8 * MiB);
    expect(boundBytes(100 * GiB)).toBe(64 * MiB);
  });

  test("never cross the reserve between two looks, however fast", () => {
    const writer = fc.record({
      capacityMib: fc.integer({ min: 64, max: 1_000_000 }),
      freeShare: fc.double({ min: 0, max: 1, noNaN: true }),
      volumes: fc.integer({ min: 1, max: 16 }),
    });
    fc.assert(
      fc.property(writer, ({ capacityMib, freeShare, volumes }) => {
        const capacityBytes = capacityMib * MiB;
        let freeBytes = Math.floor(capacityBytes * freeShare);
        const begun = freeBytes;
        for (let looks = 0; looks < 1_000_000; looks++) {
          const judged = judgeSpace({ capacityBytes, freeBytes, volumes, mayTakeBytes: 2 ** 60 }, false);
          if (judged.hold) break;
          freeBytes -= (judged.lookAgainMs / 1000) * 2048 * MiB;
        }
        // What a look comes too late at most: the shortest time between two.
        const late = (looksMs.least / 1000) * 2048 * MiB;
        const reserve = reserveBytes(capacityBytes, volumes);
        expect(freeBytes).toBeGreaterThanOrEqual(Math.min(begun, reserve) - late - 1);
      }),
      { numRuns: 200 },
    );
  });
});
