/**
 * A process that makes and removes one network over and over until it is killed. Arguments: the daemon's namespace,
 * its run directory, the request as JSON. Prints a line before the first verb.
 */
import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { createNetworks } from "../src/host/networks/kernel-networks.ts";
import type { NetworkRequest } from "../src/host/networks/networks.ts";
import { cardOf, policyOf } from "./networks-scene.ts";

const [namespace = "", runDir = "", text = ""] = process.argv.slice(2);
const request = JSON.parse(text) as NetworkRequest;
const networks = createNetworks({
  config: { namespace, runDir },
  cgroups: await openCgroups({ clock: systemClock }),
  clock: systemClock,
  logger: silentLogger,
  hostRecheckMs: 0,
});
const signal = new AbortController().signal;
console.log("ready");
for (;;) {
  await networks.ensure(request, signal);
  await networks.apply(request.uid, policyOf([cardOf(request, "victim", 9)]), signal);
  await networks.apply(request.uid, policyOf([]), signal);
  await networks.remove(request.uid, signal);
}
