/** What a backup of an instance is started as for a test. Pure. */
import type { Backup } from "../../kinds/backup.ts";
import type { InstanceSpec } from "../../kinds/instance.ts";
import { copiedVolumeName } from "../../kinds/volume.ts";

/** On the test instance and its network: name of the backup. */
export const bootTestLabel = "strata/boot-test";

/** No other resource has it: the uid is the backup's for all time. */
export function scratchName({ metadata }: Pick<Backup, "metadata">): string {
  return `boot-test-${metadata.uid}`;
}

/** Names of the volumes that come with the test instance. */
export function scratchVolumes(backup: Backup): string[] {
  return (backup.status.volumes ?? []).map(({ name }) => copiedVolumeName(scratchName(backup), name));
}

/** A network of its own, without a way to or from anywhere. */
export const scratchNetworkSpec = { internet: false, hostRoute: false } as const;

/** As long as systemd says that it is starting, it fails; where there is none, a command that runs is all. */
const initIsUp = [
  "sh",
  "-c",
  'case "$(systemctl is-system-running 2>/dev/null)" in initializing|starting|stopping|offline) exit 1;; esac',
];

/**
 * What the test instance is asked. `runs`: nothing, because the machine had no guest agent that could say more: then it is up
 * when it has run for a while.
 */
export type Asked = "command" | "own" | "init" | "runs";

export function askedOf({ spec, status }: Backup): Asked {
  const { machine, consistency } = status;
  if (spec.bootCommand !== undefined) return "command";
  if (machine?.healthCheck !== undefined || (machine?.services.length ?? 0) > 0) return "own";
  // A machine whose disks could not be frozen while it ran has no guest agent.
  return machine?.type === "vm" && consistency === "crash" ? "runs" : "init";
}

/** Set up as the saved one, but for what leads to it or lets people in. When it ends by itself, it stays so. */
export function scratchSpec(backup: Backup, machine: InstanceSpec): object {
  const name = scratchName(backup);
  const { subnet, ipAddress, ipv6Address, restarts, rebuilds, source, healthCheck, ...kept } = machine;
  const asked = askedOf(backup);
  const command = asked === "command" ? backup.spec.bootCommand : asked === "init" ? initIsUp : undefined;
  const check = command && { type: "command", command, intervalMs: 1_000, timeoutMs: 30_000 };
  return {
    ...kept,
    ...{ image: name, source: { backup: backup.metadata.name }, network: name },
    ...{ securityGroups: [], keyPairs: [], protected: false, power: "running", restartPolicy: "never" },
    ...(asked === "command" ? { services: [] } : {}),
    ...(check ? { healthCheck: check } : healthCheck && asked === "own" ? { healthCheck } : {}),
  };
}
