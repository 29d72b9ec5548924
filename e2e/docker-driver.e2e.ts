import { driverConformance } from "../src/drivers/conformance.ts";
import { DockerBench } from "./docker-bench.ts";

driverConformance("docker", async () => {
  const bench = await DockerBench.open("e2e-docker");
  return {
    makeGuest: (overrides) => bench.makeGuest(overrides),
    makeStubbornGuest: () => bench.makeStubbornGuest(),
    untilReady: (uid) => bench.untilReady(uid),
    killGuest: async (uid) => {
      process.kill(await bench.pidOf(uid), "SIGKILL");
    },
    powerOffGuest: async (uid) => {
      await bench.tryExec(uid, "kill", "-TERM", "1");
    },
    observeSpec: (uid) => bench.observeSpec(uid),
    crashWhileStarting: (spec, step) => bench.crash({ spec }, step * 60),
    makeCard: async (network) => bench.nic(network),
    observeCards: (uid) => bench.observeCards(uid),
    reachesCard: (uid, nic) => bench.reachesCard(uid, nic),
    crashWhileAttaching: (handle, nic, step) => bench.crash({ handle, nic }, step * 12),
    observeSize: (uid) => bench.observeSize(uid),
    reopen: async () => bench.driver(),
    leaks: () => bench.leaks(),
    consoleText: "guest is up",
    dispose: () => bench.dispose(),
    timeouts: { readyMs: 20_000, graceMs: 10_000 },
  };
});
