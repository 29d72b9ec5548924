import { expect, test } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { newUid, type Uid } from "../../core/ids.ts";
import { seededRandom } from "../../core/random.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { driverConformance } from "../conformance.ts";
import type { DriverHarness } from "../conformance-bench.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";
import { createFakeDriver, type FakeDriverOptions } from "./fake-driver.ts";
import { FakeWorld } from "./fake-world.ts";

const random = seededRandom(1);
const noSignal = new AbortController().signal;

function makeSpec(overrides: Partial<GuestSpec> = {}): GuestSpec {
  return {
    uid: newUid(random),
    title: "test/guest",
    hostname: "guest",
    type: "container",
    cpus: 1,
    memoryMib: 64,
    maxProcesses: 64,
    root: { type: "tree", path: "/nowhere", idBase: 1_000_000, idCount: 65_536 },
    nics: [],
    seed: { metaData: "", userData: "", networkConfig: "" },
    config: {},
    ...overrides,
  };
}

let cards = 0;
function makeNic(network: string): GuestNic {
  cards += 1;
  return {
    name: `eth${cards}`,
    macAddress: `02:00:00:00:00:${cards.toString(16).padStart(2, "0")}`,
    ipAddress: `10.0.0.${cards}`,
    prefixLength: 24,
    gateway: "10.0.0.254",
    mtu: 1500,
    netns: `/run/netns/${network}`,
    bridge: "br0",
    port: `p${cards}`,
  };
}

const liveResizes: NonNullable<FakeDriverOptions["liveResize"]>[] = [
  { cpus: true, memory: "both" },
  { cpus: false, memory: "grow" },
  { cpus: true, memory: "no" },
];
for (const liveResize of liveResizes) {
  driverConformance(`fake, cpus ${liveResize.cpus}, memory ${liveResize.memory}`, () =>
    makeHarness(liveResize),
  );
}

async function makeHarness(liveResize: FakeDriverOptions["liveResize"] & object): Promise<DriverHarness> {
  const world = new FakeWorld({ clock: systemClock });
  const texts = new Map<string, string>();
  return {
    makeGuest: async (overrides) => makeSpec({ nics: [makeNic("same")], ...overrides }),
    makeCard: async (network) => makeNic(network),
    observeCards: async (uid) => world.require(uid).spec.nics.map((nic) => nic.macAddress),
    reachesCard: async (uid, nic) => world.require(uid).spec.nics.some(({ port }) => port === nic.port),
    async crashWhileAttaching(handle, nic, step) {
      world.script({ verb: "attach", effect: { type: "crash", when: step % 2 === 0 ? "before" : "after" } });
      const dying = createFakeDriver(world).cards?.attach(handle, nic, noSignal);
      await Promise.race([dying, systemClock.sleep(1)]);
    },
    originalOf: async () =>
      new Map(
        ["", "etc"].map((path) => [path, { path, type: "directory", mode: 0o755, uid: 0, gid: 0 }] as const),
      ),
    remember: async (uid, word) => {
      world.require(uid).thought = word;
    },
    recall: async (uid) => world.require(uid).thought,
    memoryPath: () => `/memories/${newUid(random)}`,
    writeRoot: async (uid, path, text) => world.write(uid, path, text),
    makeVolume: async () => {
      const id = newUid(random);
      return { type: "mount", id, path: `/volumes/${id}`, target: `/srv/${id}` };
    },
    async dropVolume({ id }) {
      for (const { spec } of world.guests.values()) {
        if (spec.volumes?.some((volume) => volume.id === id)) throw new Error(`${spec.uid} still has ${id}`);
      }
      texts.delete(id);
    },
    async writeVolume(_uid, { id }, text) {
      texts.set(id, text);
    },
    readVolume: async (uid, { id }) =>
      world.require(uid).spec.volumes?.some((volume) => volume.id === id) ? texts.get(id) : undefined,
    async observeSize(uid) {
      const { cpus, memoryMib } = world.require(uid).spec;
      return { cpus, memoryMib };
    },
    simulated: true,
    makeStubbornGuest: async () => makeSpec({ config: { shutdownMs: "never" } }),
    killGuest: async (uid) => world.kill(uid),
    powerOffGuest: async (uid) => world.powerOff(uid),
    async observeSpec(uid) {
      const spec = world.guests.get(uid)?.spec;
      return { memoryMib: spec?.memoryMib ?? 0, hostname: spec?.hostname ?? "" };
    },
    async crashWhileStarting(spec, step) {
      const verb = step < 5 ? "create" : "start";
      world.script({ verb, effect: { type: "crash", when: step % 2 === 0 ? "before" : "after" } });
      const driver = createFakeDriver(world);
      const dying = driver.create(spec, noSignal).then((handle) => driver.start(handle, noSignal));
      await Promise.race([dying, systemClock.sleep(1)]);
    },
    reopen: async () => createFakeDriver(world, { liveResize }),
    leaks: async () => [...world.guests.keys()],
    consoleText: "login:",
    dispose: async () => {},
    timeouts: { readyMs: 1_000, graceMs: 1_000 },
  };
}

test("the n-th call fails, before or after the action", async () => {
  const world = new FakeWorld({ clock: new VirtualClock() });
  const driver = createFakeDriver(world);
  world.script({ verb: "create", nth: 2, effect: { type: "fail", code: "CapacityExceeded" } });
  world.script({ verb: "create", nth: 3, effect: { type: "lose-answer" } });
  const [one, two, three] = [makeSpec(), makeSpec(), makeSpec()];
  await driver.create(one, noSignal);
  await expect(driver.create(two, noSignal)).rejects.toMatchObject({ code: "CapacityExceeded" });
  await expect(driver.create(three, noSignal)).rejects.toMatchObject({ code: "Unavailable" });
  expect([...world.guests.keys()]).toEqual([one.uid, three.uid]);
});

test("a crash of the caller is told, and the call never answers", async () => {
  let crashes = 0;
  const world = new FakeWorld({ clock: new VirtualClock(), onCrash: () => crashes++ });
  world.script({ verb: "create", effect: { type: "crash", when: "after" } });
  const spec = makeSpec();
  let answered = false;
  void createFakeDriver(world)
    .create(spec, noSignal)
    .finally(() => {
      answered = true;
    });
  await new VirtualClock().advance(0);
  expect({ crashes, answered }).toEqual({ crashes: 1, answered: false });
  expect((await createFakeDriver(world).inspect(spec.uid))?.state).toBe("created");
});

test("guests end by themselves on the virtual clock, and a restart begins a new life", async () => {
  const clock = new VirtualClock();
  const world = new FakeWorld({ clock });
  const driver = createFakeDriver(world);
  const spec = makeSpec({ config: { lifetimeMs: 60_000, endsBy: "crash" } });
  const handle = await driver.create(spec, noSignal);
  await driver.start(handle, noSignal);
  await clock.advance(59_000);
  await driver.stop(handle, { graceMs: 0 }, noSignal);
  await driver.start(handle, noSignal);
  await clock.advance(59_000);
  expect((await driver.inspect(spec.uid))?.state).toBe("running");
  await clock.advance(1_000);
  expect(await driver.inspect(spec.uid)).toMatchObject({ state: "stopped", exit: { reason: "crash" } });
});

test("a slow shutdown takes its time, and the grace period bounds it", async () => {
  const clock = new VirtualClock();
  const world = new FakeWorld({ clock });
  const driver = createFakeDriver(world);
  const spec = makeSpec({ config: { shutdownMs: 5_000 } });
  const handle = await driver.create(spec, noSignal);
  for (const [graceMs, takesMs] of [
    [10_000, 5_000],
    [3_000, 3_000],
  ] as const) {
    await driver.start(handle, noSignal);
    const before = clock.now();
    let endedAt = 0;
    const stopping = driver.stop(handle, { graceMs }, noSignal).then(() => {
      endedAt = clock.now();
    });
    await clock.advance(20_000);
    await stopping;
    expect(endedAt - before).toBe(takesMs);
  }
});

test("the same calls give the same world", async () => {
  const history = async () => {
    const world = new FakeWorld({ clock: new VirtualClock() });
    const driver = createFakeDriver(world);
    const hints: Uid[] = [];
    world.onHint((uid) => hints.push(uid));
    for (const uid of ["0000000000000001", "0000000000000002"] as Uid[]) {
      const handle = await driver.create(makeSpec({ uid }), noSignal);
      await driver.start(handle, noSignal);
    }
    world.kill("0000000000000001" as Uid);
    return { hints, guests: await driver.list() };
  };
  expect(await history()).toEqual(await history());
});

test("carries thousands of guests", async () => {
  const world = new FakeWorld({ clock: new VirtualClock() });
  const driver = createFakeDriver(world);
  for (let index = 0; index < 5_000; index++) {
    await driver.start(await driver.create(makeSpec(), noSignal), noSignal);
  }
  expect((await driver.list()).filter((guest) => guest.state === "running")).toHaveLength(5_000);
});
