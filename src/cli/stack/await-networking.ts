/** Waits until what leads to a stack's instances is in force: further network cards, addresses, published ports. */
import type { Client } from "../../client/client.ts";
import { addressKind } from "../../kinds/address.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import type { Kind } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { FailureGrace } from "../failure-grace.ts";
import { kindTitle } from "../resolve.ts";
import { follow, type Patience } from "../watching.ts";
import type { Reporter } from "./apply-stack.ts";
import { keyOf } from "./plan-stack.ts";

interface Leading {
  kind: Kind;
  /** The state of one that has an instance, and of one that has none. */
  states: { with: string; without: string };
}

const leading: readonly Leading[] = [
  { kind: loadBalancerKind as unknown as Kind, states: { with: "active", without: "active" } },
  { kind: certificateKind as unknown as Kind, states: { with: "ready", without: "ready" } },
  { kind: networkInterfaceKind as Kind, states: { with: "attached", without: "available" } },
  { kind: addressKind as Kind, states: { with: "bound", without: "free" } },
  { kind: publishedPortKind as Kind, states: { with: "active", without: "active" } },
];

interface Observed {
  state: string;
  message: string;
  observedGeneration: number;
}

/** `running`: names of instances; what leads to others has to wait for them. @throws Unavailable when one stays failed. */
export async function awaitNetworking(
  client: Client,
  project: string,
  desired: readonly { kind: Kind; name: string }[],
  running: ReadonlySet<string>,
  limits: Patience,
  reporter: Reporter,
): Promise<void> {
  const grace = new FailureGrace(limits);
  try {
    for (const one of leading) {
      await awaitKind(client, project, one, { desired, running, grace, reporter });
    }
  } finally {
    grace.end();
  }
}

interface Waiting {
  desired: readonly { kind: Kind; name: string }[];
  running: ReadonlySet<string>;
  grace: FailureGrace;
  reporter: Reporter;
}

async function awaitKind(
  client: Client,
  project: string,
  { kind, states }: Leading,
  { desired, running, grace, reporter }: Waiting,
): Promise<void> {
  const names = desired.filter((one) => one.kind === kind).map((one) => one.name);
  const left = new Set(names);
  if (left.size === 0) return;
  await follow(
    client,
    kind,
    { project },
    grace.limits,
    (seen) => {
      for (const name of left) {
        const found = seen.get(`${project}/${name}`);
        if (!found) continue;
        const { state, message, observedGeneration } = found.status as Observed;
        const { instance } = found.spec as { instance?: string };
        const waits = instance !== undefined && !running.has(instance);
        const current = observedGeneration >= found.metadata.generation;
        const failed = current && state === "failed" && !waits;
        const title = `${kindTitle(kind)} "${name}"`;
        grace.saw(title, failed ? `${title} is not in force: ${message}` : undefined);
        if (failed) reporter.progress(keyOf(kind, name), `${state}: ${message}`);
        if (!waits && !(current && state === states[instance === undefined ? "without" : "with"])) continue;
        left.delete(name);
        const text = waits ? `waits for ${instance}` : state;
        reporter.progress(keyOf(kind, name), text, { settled: true });
      }
      return left.size === 0;
    },
    () => `waiting for ${kindTitle(kind)} ${[...left].join(", ")}`,
  );
}
