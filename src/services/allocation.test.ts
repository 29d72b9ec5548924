import fc from "fast-check";
import { expect, test } from "vitest";
import { formatIp, formatRange, overlaps, parseRange } from "../core/ip-range.ts";
import { seededRandom } from "../core/random.ts";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import type { Store } from "../store/store.ts";
import { Addresses } from "./addresses.ts";
import { addressKey, parseAddressKey } from "./free-addresses.ts";
import { Ranges } from "./ranges.ts";

const holder = { kind: "Instance", project: "default", name: "web", uid: "0000000000000000" };
const networkUid = "1111111111111111";
const lan = (cidr: string, ipv6Cidr?: string) => ({ networkUid, name: "lan", cidr, ipv6Cidr });

async function takeAndCommit(store: Store, addresses: Addresses, cidr: string): Promise<string> {
  const taken = await addresses.take(lan(cidr), holder);
  await store.commit(taken.writes);
  return taken.ipAddress;
}

test("keys sort as addresses do", () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 2n ** 128n - 1n), fc.bigInt(0n, 2n ** 128n - 1n), (a, b) => {
      expect(addressKey(6, a) < addressKey(6, b)).toBe(a < b);
      expect(parseAddressKey(addressKey(6, a))).toBe(a);
    }),
  );
});

test("the first two and the last address are never given out; all others are, each once", async () => {
  const store = createMemoryStore();
  const addresses = new Addresses(store, seededRandom(1));
  const given = await Promise.all(
    Array.from({ length: 13 }, () => takeAndCommit(store, addresses, "10.1.2.16/28")),
  );
  const expected = Array.from({ length: 13 }, (_, i) => `10.1.2.${18 + i}`);
  expect(given.toSorted()).toEqual(expected.toSorted());
  await expect(addresses.take(lan("10.1.2.16/28"), holder)).rejects.toMatchObject({
    code: "CapacityExceeded",
    message: expect.stringContaining("all 13 of 10.1.2.16/28"),
  });
});

test("a freed address comes back, after those that rested longer", async () => {
  const store = createMemoryStore();
  const addresses = new Addresses(store, seededRandom(1));
  for (let i = 0; i < 10; i++) await takeAndCommit(store, addresses, "10.1.2.16/28");
  await store.commit(addresses.release(networkUid, "10.1.2.18"));
  await store.commit(addresses.release(networkUid, "10.1.2.20"));
  const next = [];
  for (let i = 0; i < 5; i++) next.push(await takeAndCommit(store, addresses, "10.1.2.16/28"));
  expect(next).toEqual(["10.1.2.28", "10.1.2.29", "10.1.2.30", "10.1.2.18", "10.1.2.20"]);
});

test("any sequence of takes and releases, with restarts between, gives what is free and nothing else", async () => {
  const step = fc.oneof(
    fc.constant({ type: "take" as const }),
    fc.record({ type: fc.constant("release" as const), pick: fc.nat(20) }),
    fc.constant({ type: "restart" as const }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const store = createMemoryStore();
      let addresses = new Addresses(store, seededRandom(1));
      const taken = new Set<string>();
      for (const current of steps) {
        if (current.type === "restart") addresses = new Addresses(store, seededRandom(2));
        else if (current.type === "release") {
          const victim = [...taken][current.pick % Math.max(1, taken.size)];
          if (victim === undefined) continue;
          taken.delete(victim);
          await store.commit(addresses.release(networkUid, victim));
        } else if (taken.size === 13) {
          await expect(addresses.take(lan("10.1.2.16/28"), holder)).rejects.toThrow();
        } else {
          const address = await takeAndCommit(store, addresses, "10.1.2.16/28");
          expect(taken.has(address)).toBe(false);
          taken.add(address);
        }
      }
    }),
    { numRuns: 50 },
  );
});

test("reads stay few however many addresses are taken", async () => {
  const store = createMemoryStore();
  let reads = 0;
  const counting = {
    ...store,
    list: (...args: Parameters<Store["list"]>) => {
      reads++;
      return store.list(...args);
    },
  } as Store;
  for (let i = 0; i < 20_000; i += 50) {
    const writes = Array.from({ length: 50 }, (_, j) => ({
      put: `/allocations/cards/${networkUid}/4/${addressKey(4, BigInt((10 << 24) + 2 + i + j))}`,
      value: {},
    }));
    await store.commit(writes);
  }
  const addresses = new Addresses(counting, seededRandom(1));
  expect((await addresses.take(lan("10.0.0.0/16"), holder)).ipAddress).toBe("10.0.78.34");
  reads = 0;
  for (let i = 0; i < 100; i++) await addresses.take(lan("10.0.0.0/16"), holder);
  expect(reads).toBe(100);
});

test("MAC addresses are local, unicast and as unique as the address", async () => {
  const addresses = new Addresses(createMemoryStore(), seededRandom(1));
  const macs = await Promise.all(
    Array.from({ length: 50 }, async () => (await addresses.take(lan("10.0.0.0/16"), holder)).macAddress),
  );
  for (const mac of macs) expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
  expect(new Set(macs.map((mac) => mac.slice(6))).size).toBe(50);
});

test("ranges never overlap, whoever names which", async () => {
  const wanted = fc.option(
    fc.record({ address: fc.nat(2 ** 20), length: fc.integer({ min: 20, max: 28 }) }),
    { nil: undefined },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(wanted, { maxLength: 25 }), async (wishes) => {
      const store = createMemoryStore();
      const ranges = new Ranges(store, "10.0.0.0/16");
      const given: string[] = [];
      for (const wish of wishes) {
        const text = formatIp({ family: 4, value: BigInt((10 << 24) + (wish?.address ?? 0)) });
        const around = parseRange(`${text}/${wish?.length ?? 24}`)?.range;
        const cidr = wish && around && formatRange(around);
        try {
          const claim = await ranges.claim({ cidr }, { project: "p", network: "n", uid: "u" });
          await store.commit(claim.writes);
          given.push(claim.cidr);
        } catch (error) {
          expect(error).toMatchObject({ code: cidr === undefined ? "CapacityExceeded" : "Conflict" });
        }
      }
      const parsed = given.flatMap((cidr) => parseRange(cidr)?.range ?? []);
      for (const [i, a] of parsed.entries()) {
        for (const b of parsed.slice(i + 1)) expect(overlaps(a, b)).toBe(false);
      }
    }),
    { numRuns: 40 },
  );
});

test("the pool gives each /24 once, the lowest first, and says when it is used up", async () => {
  const store = createMemoryStore();
  const ranges = new Ranges(store, "10.9.0.0/22");
  const owner = { project: "p", network: "n", uid: "u" };
  await store.commit((await ranges.claim({ cidr: "10.9.1.128/25" }, owner)).writes);
  const given: string[] = [];
  for (let i = 0; i < 3; i++) {
    const claim = await ranges.claim({}, owner);
    await store.commit(claim.writes);
    given.push(claim.cidr);
  }
  expect(given).toEqual(["10.9.0.0/24", "10.9.2.0/24", "10.9.3.0/24"]);
  await expect(ranges.claim({}, owner)).rejects.toMatchObject({ code: "CapacityExceeded" });
  await store.commit(await ranges.release(owner, "10.9.2.0/24"));
  expect((await ranges.claim({}, owner)).cidr).toBe("10.9.2.0/24");
});

test("of two claims that looked at the same state, one commits", async () => {
  const store = createMemoryStore();
  const ranges = new Ranges(store);
  const owner = { project: "p", network: "n", uid: "u" };
  const [large, small] = await Promise.all([
    ranges.claim({ cidr: "10.20.0.0/16" }, owner),
    ranges.claim({ cidr: "10.20.5.0/24" }, owner),
  ]);
  await store.commit(large.writes);
  await expect(store.commit(small.writes)).rejects.toMatchObject({ code: "Conflict" });
});

test("an IPv6 address is made of the MAC address, and is taken like the other", async () => {
  const store = createMemoryStore();
  const addresses = new Addresses(store, { bytes: () => new Uint8Array([0x5e]) });
  const taken = await addresses.take(lan("10.1.2.0/24", "fd12:3456:789a:1::/64"), holder);
  expect(taken).toMatchObject({
    macAddress: "02:5e:0a:01:02:02",
    ipv6Address: "fd12:3456:789a:1:5e:aff:fe01:202",
  });
  await store.commit(taken.writes);
  expect(await addresses.holderOf(networkUid, taken.ipv6Address ?? "")).toEqual(holder);
  await store.commit(addresses.release(networkUid, taken.ipAddress, taken.ipv6Address));
  expect(await addresses.inUse(networkUid)).toBe(false);
});

test("ranges of both families are kept apart, and only their owner frees them", async () => {
  const store = createMemoryStore();
  const ranges = new Ranges(store, "10.9.0.0/22");
  const owner = { project: "p", network: "n", uid: "u" };
  const wanted = { cidr: "192.168.0.0/16", ipv6Cidr: "fd00:0:1::/48" };
  await store.commit((await ranges.claim(wanted, owner)).writes);
  await expect(ranges.claim({ ipv6Cidr: "fd00:0:1::/48" }, owner)).rejects.toMatchObject({
    code: "Conflict",
    fields: [{ path: "spec.ipv6Cidr" }],
  });
  expect(await ranges.release({ uid: "other" }, wanted.cidr, wanted.ipv6Cidr)).toEqual([]);
  await store.commit(await ranges.release(owner, wanted.cidr, wanted.ipv6Cidr));
  expect((await store.list("/allocations/cidrs/", { limit: 10 })).entries).toEqual([]);
});
