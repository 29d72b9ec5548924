import { addressKind } from "./address.ts";
import { backupKind } from "./backup.ts";
import { backupRepositoryKind } from "./backup-repository.ts";
import { backupScheduleKind } from "./backup-schedule.ts";
import { certificateKind } from "./certificate.ts";
import { eventKind } from "./event.ts";
import { groupKind } from "./group.ts";
import { hostKind } from "./host.ts";
import { imageKind } from "./image.ts";
import { instanceKind } from "./instance.ts";
import { keyPairKind } from "./key-pair.ts";
import type { Kind } from "./kind.ts";
import { leaseKind } from "./lease.ts";
import { loadBalancerKind } from "./load-balancer.ts";
import { networkKind } from "./network.ts";
import { networkInterfaceKind } from "./network-interface.ts";
import { peeringKind } from "./peering.ts";
import { projectKind } from "./project.ts";
import { publishedPortKind } from "./published-port.ts";
import { routeTableKind } from "./route-table.ts";
import { scalingDecisionKind } from "./scaling-decision.ts";
import { securityGroupKind } from "./security-group.ts";
import { snapshotKind } from "./snapshot.ts";
import { storagePoolKind } from "./storage-pool.ts";
import { subnetKind } from "./subnet.ts";
import { tokenKind } from "./token.ts";
import { volumeKind } from "./volume.ts";

/** Every kind, in the order in which a stack creates them (a kind may name those before it). */
export const kinds = [
  projectKind,
  hostKind,
  tokenKind,
  leaseKind,
  keyPairKind,
  networkKind,
  peeringKind,
  routeTableKind,
  subnetKind,
  securityGroupKind,
  imageKind,
  storagePoolKind,
  backupRepositoryKind,
  volumeKind,
  snapshotKind,
  backupKind,
  backupScheduleKind,
  instanceKind,
  groupKind,
  certificateKind,
  loadBalancerKind,
  networkInterfaceKind,
  addressKind,
  publishedPortKind,
  scalingDecisionKind,
  eventKind,
] as const;

export function findKind(nameOrPlural: string): Kind | undefined {
  return kinds.find((kind) => kind.name === nameOrPlural || kind.plural === nameOrPlural) as Kind | undefined;
}
