import { driverConformance } from "../src/drivers/conformance.ts";
import { scanTree } from "../src/host/images/tree-scan.ts";
import type { RootEntry } from "../src/kinds/drift.ts";
import { DockerBench, idBase } from "./docker-bench.ts";

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
    originalOf: async (root) => originalOf(root.path),
    writeRoot: async (uid, path, text) => {
      await bench.exec(uid, "sh", "-c", `echo '${text}' > /${path}`);
    },
    reopen: async () => bench.driver(),
    leaks: () => bench.leaks(),
    consoleText: "guest is up",
    dispose: () => bench.dispose(),
    timeouts: { readyMs: 20_000, graceMs: 10_000 },
  };
});

function originalOf(root: string): ReadonlyMap<string, RootEntry> {
  const { entries } = scanTree({ root, idBase, content: true });
  return new Map(entries.map((entry) => [entry.path, entry]));
}
