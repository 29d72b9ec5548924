import type { Fingerprint, Host, HostStatus } from "../../kinds/host.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { Machine } from "../machine.ts";

export interface HostWorld {
  host: Host | undefined;
  machine: Machine;
  disk: { totalMib: number; freeMib: number };
  /** In the order of preference; `probing` where nothing is proven yet. */
  fingerprints: readonly (readonly [name: string, fingerprint: Fingerprint])[];
}

export type HostAction = { type: "register" };

/** Free disk space and the like are looked at this often. */
export const hostRecheckMs = 60_000;
/** Disk space is told in steps, so that the report does not change with every file written. */
const diskStepMib = 4096;

/** The host as its agent reports it. Whether it is still there is for the control plane to find out by its lease. */
export function planHost(world: HostWorld): Plan<HostAction, HostStatus> {
  const { host } = world;
  if (!host) return { status: undefined, actions: [{ type: "register" }] };
  return { status: hostStatus(world, host), actions: [], recheckAfterMs: hostRecheckMs };
}

function hostStatus(world: HostWorld, host: Host): HostStatus {
  const { machine, disk, fingerprints } = world;
  const steps = (mib: number) => Math.floor(mib / diskStepMib) * diskStepMib || mib;
  return {
    ...host.status,
    state: "ready",
    message: "",
    capacity: { cpus: machine.cpus, memoryMib: machine.memoryMib, diskMib: disk.totalMib },
    allocatable: {
      cpus: machine.cpus,
      memoryMib: Math.max(0, machine.memoryMib - hostMemoryMib(machine.memoryMib)),
      diskMib: steps(disk.freeMib),
    },
    drivers: Object.fromEntries(fingerprints),
    facts: machine.facts,
  };
}

/** What the host keeps for itself: a tenth, at least 512 MiB, at most 4 GiB. */
export function hostMemoryMib(memoryMib: number): number {
  return Math.min(4096, Math.max(512, Math.floor(memoryMib / 10)));
}
