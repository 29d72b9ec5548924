import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Fingerprint, type Host, hostKind } from "../kinds/host.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { type Candidate, type InstanceRequest, placeImage, placeInstance, preference } from "./placement.ts";
import { Usage } from "./usage.ts";

const fingerprint: Fingerprint = {
  available: true,
  message: "",
  version: "1",
  types: ["vm", "container"],
  abilities: [],
  facts: {},
};

interface HostChange {
  spec?: Partial<Host["spec"]>;
  status?: Partial<Host["status"]>;
}

function hostOf(name: string, change: HostChange = {}): Host {
  return {
    kind: "Host",
    metadata: {
      name,
      uid: "1".repeat(16) as Host["metadata"]["uid"],
      revision: 1,
      generation: 1,
      labels: {},
      createdAt: "2030-01-01T00:00:00.000Z",
      finalizers: [],
    },
    spec: { ...hostKind.spec.parse({ cpuOvercommit: 2 }), ...change.spec },
    status: {
      ...hostKind.initialStatus(),
      state: "ready",
      allocatable: { cpus: 4, memoryMib: 8_192, diskMib: 100_000 },
      drivers: { lxc: fingerprint },
      ...change.status,
    },
  };
}

const unused = { cpus: 0, memoryMib: 0, instances: 0 };
const candidate = (
  name: string,
  change: HostChange = {},
  use: Partial<Candidate["use"]> = {},
): Candidate => ({
  host: hostOf(name, change),
  use: { ...unused, ...use },
});
const request = (change: Partial<InstanceRequest> = {}): InstanceRequest => ({
  type: "container",
  driver: undefined,
  cpus: 1,
  memoryMib: 1_024,
  diskMib: 1_000,
  imageHost: "a",
  ...change,
});

describe("a host that cannot take it says why", () => {
  test.each<[string, Candidate, Partial<InstanceRequest>, string]>([
    [
      "not ready",
      candidate("a", { status: { state: "not-ready", message: "silent" } }),
      {},
      "a is not ready (silent)",
    ],
    ["cordoned", candidate("a", { spec: { cordoned: true } }), {}, "a is cordoned"],
    ["no image", candidate("a"), { imageHost: "b" }, "a does not have the image"],
    ["no image anywhere", candidate("a"), { imageHost: undefined }, "a does not have the image"],
    ["no driver", candidate("a", { status: { drivers: {} } }), {}, "a has no working driver for a container"],
    [
      "a driver that does not work",
      candidate("a", {
        status: { drivers: { lxc: { ...fingerprint, available: false, message: "not installed" } } },
      }),
      {},
      "a has no working driver for a container (lxc: not installed)",
    ],
    [
      "a driver of the other type",
      candidate("a", { status: { drivers: { lxc: { ...fingerprint, types: ["vm"] } } } }),
      {},
      "no working driver for a container",
    ],
    ["not the driver asked for", candidate("a"), { driver: "qemu" }, 'no working driver "qemu"'],
    ["memory", candidate("a", {}, { memoryMib: 7_169 }), {}, "a has 1023 MiB of memory free, 1 GiB needed"],
    ["cpus", candidate("a", {}, { cpus: 6 }), { cpus: 3 }, "a has 2 CPUs left to promise, 3 needed"],
    ["disk", candidate("a"), { diskMib: 100_001 }, "of disk free"],
  ])("%s", (_name, host, change, message) => {
    expect(placeInstance(request(change), [host])).toEqual({ message: expect.stringContaining(message) });
  });

  test("all of them, as far as they fit", () => {
    const hosts = Array.from({ length: 12 }, (_, index) =>
      candidate(`h${index}`, { spec: { cordoned: true } }),
    );
    const placement = placeInstance(request(), hosts);
    expect(placement).toEqual({
      message: expect.stringMatching(/^no host can take it: h0 is .*h7 .*and 4 more$/),
    });
    expect(placeInstance(request(), [])).toEqual({ message: expect.stringContaining("none is registered") });
  });
});

test("exactly what is free fits", () => {
  const full = candidate("a", {}, { memoryMib: 7_168, cpus: 7 });
  expect(placeInstance(request(), [full])).toEqual({ host: "a" });
});

test("images go to the host with the fewest, and names break ties", () => {
  const hosts = [candidate("b"), candidate("a"), candidate("c")];
  expect(placeImage(hosts, new Map())).toEqual({ host: "a" });
  expect(
    placeImage(
      hosts,
      new Map([
        ["a", 2],
        ["b", 1],
        ["c", 1],
      ]),
    ),
  ).toEqual({ host: "b" });
  expect(placeImage([candidate("a", { spec: { cordoned: true } })], new Map())).toEqual({
    message: expect.stringContaining("a is cordoned"),
  });
});

const instanceOn = (host: string | undefined, memoryMib: number, cpus: number): Instance => ({
  kind: "Instance",
  metadata: { ...hostOf("i").metadata, name: "i" },
  spec: { ...instanceKind.spec.parse({ type: "container", image: "x" }), memoryMib, cpus },
  status: { ...instanceKind.initialStatus(), ...(host === undefined ? {} : { host }) },
});

test("use follows single changes and equals a count of all", () => {
  const step = fc.record({
    key: fc.integer({ min: 0, max: 5 }),
    host: fc.constantFrom("a", "b", undefined),
    memoryMib: fc.integer({ min: 1, max: 100 }),
    gone: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const usage = new Usage();
      const all = new Map<number, Instance>();
      for (const { key, host, memoryMib, gone } of steps) {
        const next = gone ? undefined : instanceOn(host, memoryMib, 1);
        usage.change(next, all.get(key));
        if (next) all.set(key, next);
        else all.delete(key);
      }
      for (const host of ["a", "b"]) {
        const here = [...all.values()].filter(({ status }) => status.host === host);
        expect(usage.of(host)).toEqual({
          cpus: here.length,
          instances: here.length,
          memoryMib: here.reduce((sum, { spec }) => sum + spec.memoryMib, 0),
        });
      }
    }),
  );
});

test("placing one after the other promises no memory twice, respects the overcommit, and spreads", () => {
  const sizes = fc.array(
    fc.record({ memoryMib: fc.integer({ min: 1, max: 4_000 }), cpus: fc.integer({ min: 1, max: 4 }) }),
    {
      maxLength: 40,
    },
  );
  fc.assert(
    fc.property(sizes, (requests) => {
      const usage = new Usage();
      const hosts = ["a", "b", "c"].map((name) => hostOf(name));
      for (const { memoryMib, cpus } of requests) {
        const candidates = hosts.map((host) => ({ host, use: usage.of(host.metadata.name) }));
        for (const imageHost of ["a", "b", "c"]) {
          const placement = placeInstance(request({ memoryMib, cpus, imageHost }), candidates);
          if ("host" in placement) expect(placement.host).toBe(imageHost);
        }
        const placement = placeInstance(request({ memoryMib, cpus, imageHost: "a" }), candidates);
        if ("host" in placement) usage.change(instanceOn(placement.host, memoryMib, cpus), undefined);
      }
      for (const { metadata, status, spec } of hosts) {
        const use = usage.of(metadata.name);
        expect(use.memoryMib).toBeLessThanOrEqual(status.allocatable.memoryMib);
        expect(use.cpus).toBeLessThanOrEqual(status.allocatable.cpus * spec.cpuOvercommit);
      }
    }),
  );
});

describe("members of one group", () => {
  const better = (a: Candidate, b: Candidate) => preference(a, request()) > preference(b, request());
  const full = { memoryMib: 7_000, cpus: 7 };
  test("go to the host with the fewest of them, however little is free there", () => {
    expect(better({ ...candidate("a", {}, full), siblings: 0 }, { ...candidate("b"), siblings: 1 })).toBe(
      true,
    );
    expect(better({ ...candidate("a", {}, full), siblings: 2 }, { ...candidate("b"), siblings: 3 })).toBe(
      true,
    );
  });
  test("go to the emptiest of several with as many", () => {
    expect(better({ ...candidate("a"), siblings: 2 }, { ...candidate("b", {}, full), siblings: 2 })).toBe(
      true,
    );
    expect(better(candidate("a"), candidate("b", {}, full))).toBe(true);
  });
});
