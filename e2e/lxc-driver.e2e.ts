import { driverConformance } from "../src/drivers/conformance.ts";
import { idBase, LxcBench, stubbornInit } from "./lxc-bench.ts";

driverConformance("lxc", async () => {
  const bench = await LxcBench.open("e2e-lxc");
  return {
    makeGuest: (overrides) => bench.makeGuest(overrides),
    makeStubbornGuest: () => bench.makeGuest({}, { "sbin/init": stubbornInit }),
    untilReady: (uid) => bench.untilReady(uid),
    killGuest: async (uid) => {
      process.kill(await bench.pidOf(uid), "SIGKILL");
    },
    powerOffGuest: async (uid) => {
      await bench.tryExec(uid, "poweroff", "-f");
    },
    observeSpec: (uid) => bench.observeSpec(uid),
    crashWhileStarting: (spec, step) => bench.crashWhileStarting(spec, step * 8),
    makeCard: async (network) => bench.card(network),
    observeCards: (uid) => bench.observeCards(uid),
    reachesCard: (_uid, nic) => bench.reachesCard(nic),
    crashWhileAttaching: (handle, nic, step) => bench.crashWhileAttaching(handle, nic, step * 8),
    makeVolume: () => bench.volumes.mount({ idBase, idCount: 65_536 }),
    dropVolume: (volume) => bench.volumes.drop(volume),
    writeVolume: (uid, volume, text) => bench.writeVolume(uid, volume, text),
    readVolume: (uid, volume) => bench.readVolume(uid, volume),
    observeSize: (uid) => bench.observeSize(uid),
    forgetGuest: (uid) => bench.forgetGuest(uid),
    reopen: async () => bench.driver(),
    leaks: () => bench.leaks(),
    consoleText: "guest is up",
    dispose: () => bench.dispose(),
    timeouts: { readyMs: 10_000, graceMs: 10_000 },
  };
});
