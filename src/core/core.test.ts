import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { describeError, errorCodes, hasCode, isRetryable, StrataError, toStrataError } from "./errors.ts";
import {
  decodeBase32,
  encodeBase32,
  isUid,
  namePattern,
  newUid,
  prefixedHexId,
  shortId,
  type Uid,
} from "./ids.ts";
import { canonicalJson, type Json, jsonEquals, mergePatch } from "./json.ts";
import { randomFraction, randomInt, seededRandom, systemRandom } from "./random.ts";
import { formatBytes, parseMib, parseSize } from "./units.ts";
import { VirtualClock } from "./virtual-clock.ts";

const json = fc.jsonValue() as fc.Arbitrary<Json>;

describe("errors", () => {
  it("answers for every code whether a retry may help", () => {
    expect(errorCodes.filter(isRetryable)).toEqual([
      "Conflict",
      "CapacityExceeded",
      "Unavailable",
      "Timeout",
      "Compacted",
      "Internal",
    ]);
  });

  it("keeps the cause for logs and the message for people", () => {
    const cause = new Error("EIO");
    const error = new StrataError("Unavailable", "cannot write", { cause, detail: "/some/path" });
    expect(describeError(error)).toBe("Unavailable: cannot write (/some/path) <- Error: EIO");
    expect(error.message).not.toContain("/some/path");
    expect(hasCode(error, "Timeout", "Unavailable")).toBe(true);
    expect(toStrataError(error, "x")).toBe(error);
    expect(toStrataError(cause, "reading")).toMatchObject({ code: "Internal", cause });
  });
});

describe("ids", () => {
  it("makes uids that are recognised, distinct and start with their short form", () => {
    const uids = new Set(Array.from({ length: 1000 }, () => newUid(systemRandom)));
    expect(uids.size).toBe(1000);
    for (const uid of uids) {
      expect(isUid(uid)).toBe(true);
      expect(uid.startsWith(shortId(uid))).toBe(true);
    }
  });

  it("encodes 5 bytes as 8 characters, as Crockford does", () => {
    expect(encodeBase32(new Uint8Array([0, 0, 0, 0, 0]))).toBe("00000000");
    expect(encodeBase32(new Uint8Array([255, 255, 255, 255, 255]))).toBe("zzzzzzzz");
    expect(encodeBase32(new Uint8Array([0, 0, 0, 0, 33]))).toBe("00000011");
  });

  it("decodes what it encoded", () => {
    const fives = fc.array(fc.uint8Array({ minLength: 5, maxLength: 5 }), { maxLength: 4 });
    fc.assert(
      fc.property(fives, (chunks) => {
        const bytes = Uint8Array.from(chunks.flatMap((chunk) => [...chunk]));
        expect(decodeBase32(encodeBase32(bytes))).toEqual(bytes);
      }),
    );
  });

  it("gives uids the form that clients of EC2 know, and can go back", () => {
    expect(prefixedHexId("i", "0123456789abcdef" as Uid)).toBe("i-00443214c74254b63");
    const uid = newUid(systemRandom);
    const id = prefixedHexId("vpc", uid);
    expect(id).toMatch(/^vpc-[0-9a-f]{17}$/);
    expect(encodeBase32(Buffer.from(`${id.slice(4)}000`, "hex")).slice(0, 13)).toBe(uid.slice(0, 13));
  });

  it("accepts only DNS labels as names", () => {
    for (const good of ["a", "web-1", "a".repeat(63)]) expect(good).toMatch(namePattern);
    for (const bad of ["", "-a", "a-", "1a", "A", "a_b", "a.b", "a;rm", "a".repeat(64), "a\n", "ä"]) {
      expect(bad).not.toMatch(namePattern);
    }
  });
});

describe("json", () => {
  it("patches as RFC 7396 shows", () => {
    expect(mergePatch({ a: "b", c: { d: "e", f: "g" } }, { a: "z", c: { f: null } })).toEqual({
      a: "z",
      c: { d: "e" },
    });
    expect(mergePatch({ a: [1, 2] }, { a: [3] })).toEqual({ a: [3] });
    expect(mergePatch({ a: "b" }, ["c"])).toEqual(["c"]);
    expect(mergePatch({}, { a: { bb: { ccc: null } } })).toEqual({ a: { bb: {} } });
  });

  it("gives equal values equal canonical text, and parses back to the same", () => {
    fc.assert(
      fc.property(json, (value) => {
        expect(jsonEquals(JSON.parse(canonicalJson(value)), value)).toBe(true);
        expect(canonicalJson(JSON.parse(canonicalJson(value)))).toBe(canonicalJson(value));
      }),
    );
    expect(canonicalJson({ b: 1, a: [{ d: 1, c: 2 }] })).toBe('{"a":[{"c":2,"d":1}],"b":1}');
  });

  it("finds values equal exactly when their canonical texts are", () => {
    fc.assert(
      fc.property(json, json, (a, b) => {
        expect(jsonEquals(a, b)).toBe(canonicalJson(a) === canonicalJson(b));
      }),
    );
    expect(jsonEquals({ a: [1, { b: 2, c: 3 }] }, { a: [1, { c: 3, b: 2 }] })).toBe(true);
    expect(jsonEquals({ a: 1 }, { a: 1, b: 2 })).toBe(false);
    expect(jsonEquals([1], { 0: 1 })).toBe(false);
    expect(jsonEquals(undefined, null)).toBe(false);
  });

  it("is idempotent and changes neither argument", () => {
    fc.assert(
      fc.property(json, json, (target, patch) => {
        const before = JSON.stringify([target, patch]);
        const once = mergePatch(target, patch);
        expect(jsonEquals(mergePatch(once, patch), once)).toBe(true);
        expect(JSON.stringify([target, patch])).toBe(before);
      }),
    );
  });
});

describe("random", () => {
  it("repeats from a seed and stays in its bounds", () => {
    expect(seededRandom(7).bytes(16)).toEqual(seededRandom(7).bytes(16));
    expect(seededRandom(7).bytes(16)).not.toEqual(seededRandom(8).bytes(16));
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, below) => {
        const random = seededRandom(seed);
        expect(randomInt(random, below)).toBeLessThan(below);
        expect(randomFraction(random)).toBeLessThan(1);
      }),
    );
  });
});

describe("units", () => {
  it("reads binary sizes and refuses what is ambiguous", () => {
    expect(parseSize("512MiB")).toBe(512 * 1024 ** 2);
    expect(parseSize(" 1.5 GiB ")).toBe(1536 * 1024 ** 2);
    expect(parseMib("4GiB")).toBe(4096);
    for (const bad of ["512MB", "512", "GiB", "-1GiB", "1e3MiB", "4 gib", "", "1GiB;"]) {
      expect(() => parseSize(bad)).toThrow(/is not a size/);
    }
    expect(() => parseMib("1KiB")).toThrow(/whole number of MiB/);
  });

  it("writes sizes as people read them", () => {
    expect(formatBytes(0)).toBe("0 B");
    expect(formatBytes(1536 * 1024 ** 2)).toBe("1.5 GiB");
    expect(formatBytes(1024 ** 4)).toBe("1 TiB");
  });
});

describe("virtual clock", () => {
  it("fires in order of time, then of creation, and lets promises settle in between", async () => {
    const clock = new VirtualClock(0);
    const seen: string[] = [];
    clock.after(20, () => seen.push("b"));
    clock.after(10, () => seen.push("a1"));
    clock.after(10, () => seen.push("a2"));
    const cancel = clock.after(15, () => seen.push("never"));
    void clock.sleep(10).then(() => clock.after(5, () => seen.push(`chained at ${clock.now()}`)));
    cancel();
    await clock.advance(30);
    expect(seen).toEqual(["a1", "a2", "chained at 15", "b"]);
    expect(clock.now()).toBe(30);
  });

  it("rejects a sleep with the reason of its signal", async () => {
    const clock = new VirtualClock();
    const abort = new AbortController();
    const sleeping = clock.sleep(1000, abort.signal);
    abort.abort(new Error("enough"));
    await expect(sleeping).rejects.toThrow("enough");
    expect(clock.nextAt()).toBeUndefined();
  });
});
