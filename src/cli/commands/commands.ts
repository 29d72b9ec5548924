import type { CommandSpec } from "../command.ts";
import { addressCommands } from "./addresses.ts";
import { administrationCommands } from "./administration.ts";
import { backupRepositoryCommands } from "./backup-repositories.ts";
import { backupScheduleCommands } from "./backup-schedules.ts";
import { backupCommands } from "./backups.ts";
import { certificateCommands } from "./certificates.ts";
import { demoCommands } from "./demo.ts";
import { groupPlanCommands } from "./group-plan.ts";
import { groupCommands } from "./groups.ts";
import { imageCommands } from "./images.ts";
import { instanceCommands } from "./instances.ts";
import { interfaceCommands } from "./interfaces.ts";
import { listingCommands } from "./listings.ts";
import { loadBalancerCommands } from "./load-balancers.ts";
import { metricCommands } from "./metrics.ts";
import { networkCommands } from "./networks.ts";
import { securityGroupCommands } from "./security-groups.ts";
import { sessionCommands } from "./sessions.ts";
import { snapshotCommands } from "./snapshots.ts";
import { stackCommands } from "./stacks.ts";
import { storagePoolCommands } from "./storage-pools.ts";
import { systemCommands } from "./system.ts";
import { volumeCommands } from "./volumes.ts";

/** Every command, in the order of help. */
export const commands: readonly CommandSpec[] = [
  ...stackCommands,
  ...demoCommands,
  ...instanceCommands,
  ...listingCommands,
  ...groupCommands,
  ...groupPlanCommands,
  ...sessionCommands,
  ...metricCommands,
  ...networkCommands,
  ...securityGroupCommands,
  ...addressCommands,
  ...interfaceCommands,
  ...loadBalancerCommands,
  ...certificateCommands,
  ...volumeCommands,
  ...snapshotCommands,
  ...storagePoolCommands,
  ...backupCommands,
  ...backupRepositoryCommands,
  ...backupScheduleCommands,
  ...imageCommands,
  ...administrationCommands,
  ...systemCommands,
];
