/** What the conformance suite needs of real virtual machines. */
import type { DriverHarness } from "../src/drivers/conformance-bench.ts";
import { QemuBench } from "./qemu-bench.ts";
import { bootMarker, stubbornWord } from "./qemu-guest.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

export const readyMs = 60_000;

export async function makeQemuHarness(): Promise<DriverHarness> {
  const bench = await QemuBench.create();
  return {
    makeGuest: (overrides) => bench.makeGuest(overrides),
    makeStubbornGuest: () => bench.makeGuest({}, stubbornWord),
    untilReady: (uid) => bench.untilReady(uid, readyMs),
    killGuest: async (uid) => {
      process.kill(await bench.pidOf(uid), "SIGKILL");
    },
    powerOffGuest: (uid) => bench.type(uid, "poweroff -f"),
    observeSpec: (uid) => bench.observeSpec(uid),
    crashWhileStarting: (spec, step) => bench.crashWhileStarting(spec, step),
    makeCard: async (network) => bench.card(network),
    observeCards: (uid) => bench.observeCards(uid),
    reachesCard: (uid, nic) => bench.reachesCard(uid, nic),
    crashWhileAttaching: (handle, nic, step) => bench.crashWhileAttaching(handle, nic, step),
    makeVolume: () => bench.volumes.disk(),
    dropVolume: (volume) => bench.volumes.drop(volume),
    writeVolume: (uid, volume, text) => bench.writeVolume(uid, volume, text),
    readVolume: (uid, volume) => bench.readVolume(uid, volume),
    observeSize: (uid) => bench.observeSize(uid),
    remember: async (uid, word) => void (await bench.ask(uid, `echo ${word} > /run/word`)),
    recall: async (uid) => (await bench.ask(uid, "cat /run/word 2>/dev/null")).trim(),
    memoryPath: () => bench.memoryPath(),
    reopen: () => openTestDriver(bench.host),
    leaks: () => bench.leaks(),
    dispose: () => bench.dispose(),
    consoleText: bootMarker,
    timeouts: { readyMs, graceMs: 30_000 },
  };
}
