import type {
  BalancerRequest,
  SeenBalancer,
  SeenServer,
  ServerRequest,
} from "../../host/balancers/balancers.ts";
import type { BalancerTarget, LoadBalancer, LoadBalancerStatus } from "../../kinds/load-balancer.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface BalancerWorld {
  hostName: string;
  balancer: LoadBalancer | undefined;
  /** What it is to be; servers whose network is not known here yet are left out. */
  request: BalancerRequest | undefined;
  /** Digest of the structure asked for. */
  structure: string;
  /** Names that the host gives the servers asked for. */
  serverNames: ReadonlyMap<ServerRequest, string>;
  /** Fingerprints of the certificates asked for, by name. */
  fingerprints: ReadonlyMap<string, string>;
  /** What runs. */
  seen: SeenBalancer | undefined;
  /** Targets that cannot be reached yet, by name. */
  waiting: readonly string[];
  /** Requests held by the agent. */
  held: number;
}

export type BalancerAction =
  | { type: "ensure"; request: BalancerRequest }
  | { type: "add-server"; request: BalancerRequest; server: ServerRequest }
  | { type: "drain-server"; uid: string; name: string }
  | { type: "resume-server"; uid: string; name: string }
  | { type: "remove-server"; uid: string; name: string }
  | { type: "set-certificate"; uid: string; name: string; pem: string }
  | { type: "set-challenges"; uid: string; challenges: ReadonlyMap<string, string> }
  | { type: "remove"; uid: string }
  | { type: "finalize"; balancer: LoadBalancer };

/** Between looks while something drains: as late as this an idle server is noticed. */
export const drainLookMs = 50;
/** Between looks while a server is down, or requests are held. */
const troubledLookMs = 500;
/** Between looks otherwise: HAProxy's log tells of changes. */
const calmLookMs = 10_000;
const newsAfterMs = 200;

export function planBalancer(world: BalancerWorld): Plan<BalancerAction, LoadBalancerStatus> {
  const { balancer, request, seen } = world;
  if (!balancer || balancer.status.host !== world.hostName) return { status: undefined, actions: [] };
  const { metadata, status } = balancer;
  if (metadata.deletedAt !== undefined) return planDeletion(balancer);
  if (!request) return { status: undefined, actions: [] };
  if (!seen || seen.structure !== world.structure) {
    return {
      status: { ...status, held: world.held },
      actions: [{ type: "ensure", request }],
      reportAfterMs: newsAfterMs,
    };
  }
  const actions = [...serverActions(world, request, seen), ...contentActions(world, request, seen)];
  const next: LoadBalancerStatus = {
    ...status,
    state: "active",
    message: messageOf(world),
    observedGeneration: metadata.generation,
    servers: serverStates(status.targets, seen),
    held: world.held,
    answers: [...seen.challenges.keys()].slice(0, 1000),
  };
  return { status: next, actions, reportAfterMs: newsAfterMs, recheckAfterMs: lookAgainMs(world, seen) };
}

function planDeletion(balancer: LoadBalancer): Plan<BalancerAction, LoadBalancerStatus> {
  const { uid, finalizers } = balancer.metadata;
  if (!finalizers.includes("agent")) return { status: undefined, actions: [] };
  return {
    status: undefined,
    actions: [
      { type: "remove", uid },
      { type: "finalize", balancer },
    ],
  };
}

function serverActions(world: BalancerWorld, request: BalancerRequest, seen: SeenBalancer): BalancerAction[] {
  const { uid } = request;
  const actions: BalancerAction[] = [];
  const byName = new Map(seen.servers.map((server) => [server.name, server]));
  const wanted = new Set(world.serverNames.values());
  for (const server of request.servers) {
    const name = world.serverNames.get(server) ?? "";
    const known = byName.get(name);
    if (!known && !server.draining) actions.push({ type: "add-server", request, server });
    if (!known) continue;
    const maintained = known.state === "maintenance";
    if (server.draining && !maintained) actions.push({ type: "drain-server", uid, name });
    if (!server.draining && maintained) actions.push({ type: "resume-server", uid, name });
  }
  for (const server of seen.servers) {
    if (wanted.has(server.name)) continue;
    const { name } = server;
    if (server.state !== "maintenance") actions.push({ type: "drain-server", uid, name });
    else if (isIdle(server)) actions.push({ type: "remove-server", uid, name });
  }
  return actions;
}

function contentActions(
  world: BalancerWorld,
  request: BalancerRequest,
  seen: SeenBalancer,
): BalancerAction[] {
  const { uid, certificates, challenges } = request;
  const actions: BalancerAction[] = [];
  for (const [name, pem] of certificates) {
    if (seen.certificates.get(name) !== world.fingerprints.get(name)) {
      actions.push({ type: "set-certificate", uid, name, pem });
    }
  }
  const same =
    challenges.size === seen.challenges.size &&
    [...challenges].every(([token, answer]) => seen.challenges.get(token) === answer);
  if (!same) actions.push({ type: "set-challenges", uid, challenges });
  return actions;
}

function isIdle(server: SeenServer): boolean {
  return server.sessions === 0 && server.connections === 0;
}

function serverStates(targets: readonly BalancerTarget[], seen: SeenBalancer): LoadBalancerStatus["servers"] {
  const states: LoadBalancerStatus["servers"] = {};
  for (const { uid, draining } of targets) {
    const own = seen.servers.filter((server) => server.uid === uid);
    if (draining) {
      const idle = own.every((server) => server.state === "maintenance" && isIdle(server));
      states[uid] = { state: idle ? "idle" : "draining" };
    } else states[uid] = { state: own.some((server) => server.state === "up") ? "up" : "down" };
  }
  return states;
}

function messageOf({ waiting }: BalancerWorld): string {
  if (waiting.length === 0) return "";
  const shown = waiting.slice(0, 5).join(", ");
  return `waiting for the network of ${shown}${waiting.length > 5 ? " and more" : ""}`;
}

function lookAgainMs(world: BalancerWorld, seen: SeenBalancer): number {
  const wanted = new Set(world.serverNames.values());
  const drains = seen.servers.some(
    (server) => !wanted.has(server.name) || (server.state === "maintenance" && !isIdle(server)),
  );
  if (drains) return drainLookMs;
  const down = seen.servers.some(({ state }) => state === "down");
  return down || world.held > 0 ? troubledLookMs : calmLookMs;
}
