/**
 * Guests survive: the daemon is killed (SIGKILL) at random moments while stacks come up. Afterwards each stack is
 * complete, no guest was restarted, nothing is doubled and nothing leaked. Seeded: STRATA_SEED repeats a failure.
 */
import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const kills = Number(process.env.STRATA_KILLS ?? 50);
const killsPerStack = 5;
/** Later than this after the start of `up`, the stack is complete. */
const latestKillMs = 6_000;
const seed = Number(process.env.STRATA_SEED ?? 20261122);

let daemon: TestDaemon;
let stack: string;
let before: Snapshot;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  const tiny = await tinyImage();
  stack = await daemon.writeFile(
    "crash.yaml",
    `stack: crash
images:
  tiny: { file: ${tiny} }
instances:
  box:
    { count: 3, type: container, image: tiny, memory: 64MiB, disk: 64MiB, services: [{ name: http, port: 80, protocol: http }] }
  vm:
    { type: vm, image: tiny, memory: 128MiB, disk: 128MiB, services: [{ name: http, port: 80, protocol: http }] }
`,
  );
  await daemon.start();
});

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
});

/** What each address has answered: one text a guest as long as it is not restarted. */
class Witness {
  readonly boots = new Map<string, Set<string>>();
  readonly #abort = new AbortController();
  #done: Promise<void>;

  constructor(addresses: () => string[]) {
    this.#done = this.#watch(addresses);
  }

  async #watch(addresses: () => string[]): Promise<void> {
    while (!this.#abort.signal.aborted) {
      for (const address of addresses()) {
        const { status, text } = await httpGet(`http://${address}/boot-id`, 300);
        if (status !== 200 || !/^[0-9a-f-]{36}$/.test(text.trim())) continue;
        const seen = this.boots.get(address) ?? new Set();
        this.boots.set(address, seen.add(text.trim()));
      }
      await systemClock.sleep(50);
    }
  }

  async end(): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }
}

it(`keeps guests and completes the stack through ${kills} kills of the daemon during up`, {
  timeout: 900_000,
}, async () => {
  const random = seededRandom(seed);
  console.log(`seed ${seed}`);
  let done = 0;
  for (let round = 1; done < kills; round++) {
    const addresses = new Set<string>();
    const witness = new Witness(() => [...addresses]);
    const up = daemon.strata(["up", stack, "--yes"], { timeoutMs: 180_000 });
    const killing = (async () => {
      const moments = Array.from({ length: Math.min(killsPerStack, kills - done) }, () =>
        randomInt(random, latestKillMs),
      );
      let elapsed = 0;
      for (const moment of moments.sort((a, b) => a - b)) {
        await systemClock.sleep(Math.max(0, moment - elapsed));
        elapsed = moment;
        expect(await daemon.kill()).toBe(true);
        done++;
        await daemon.start();
        for (const instance of await daemon.instances("crash").catch(() => [])) {
          if (instance.status.nic) addresses.add(instance.status.nic.ipAddress);
        }
      }
    })();
    const [result] = await Promise.all([up, killing]);
    expect(result, `${result.stderr}\n${(await daemon.log()).slice(-3000)}`).toMatchObject({ status: 0 });

    const instances = await daemon.instances("crash");
    expect(instances.map((one) => one.metadata.name).sort()).toEqual(["box-1", "box-2", "box-3", "vm"]);
    expect(new Set(instances.map(addressOf)).size).toBe(4);
    expect(new Set(instances.map((one) => one.status.imageDigest)).size).toBe(1);
    for (const instance of instances) {
      addresses.add(addressOf(instance));
      expect(instance.status, instance.metadata.name).toMatchObject({ state: "running", crashes: 0 });
    }
    await until("every guest has been seen", () => witness.boots.size === 4, 20_000);
    // The daemon is killed once more with everything up: nothing may change.
    await daemon.kill();
    await daemon.start();
    const again = await daemon.ok(["up", stack, "--yes"]);
    expect(again.stderr + again.stdout).toContain("nothing to change");
    await witness.end();
    for (const [address, boots] of witness.boots) {
      expect([...boots], `${address} was restarted in round ${round}`).toHaveLength(1);
    }
    expect(await guestGroups()).toHaveLength(4);

    await daemon.ok(["down", stack, "--yes"]);
    expect(await daemon.instances()).toEqual([]);
    expect(await guestGroups()).toEqual([]);
  }
  expect(done).toBe(kills);
});

/** Control groups of guests, as the kernel shows them: one a guest, orphans included. */
async function guestGroups(): Promise<string[]> {
  const { namespace } = daemon.settings;
  for (const root of ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]) {
    const names = await readdir(`${root}/${namespace}`).catch(() => undefined);
    if (names) return names.filter((name) => /^[0-9a-hjkmnp-tv-z]{16}$/.test(name));
  }
  return [];
}
