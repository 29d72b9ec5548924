/** How groups and the decisions on their size look in a table or a tree. Pure. */
import type { Group } from "../kinds/group.ts";
import type { Instance } from "../kinds/instance.ts";
import type { ScalingDecision } from "../kinds/scaling-decision.ts";
import type { Branch, Cell, Tone } from "./output.ts";
import { stateCell, type TableForm } from "./show.ts";

const tones: Record<string, Tone> = { steady: "good", stopped: "bad", short: "bad" };

function groupState(group: Group): Cell {
  const { state } = group.status;
  const tone = tones[state];
  return tone && !group.metadata.deletedAt ? { text: state, tone } : stateCell(group, state);
}

export const groupForm: TableForm<Group> = {
  columns: ["NAME", "STATE", "READY", "DESIRED", "BOUNDS", "WARM", "VERSION", "MESSAGE"],
  row: (group) => {
    const { ready, desired, wanted, warm, revision, message } = group.status;
    return [
      group.metadata.name,
      groupState(group),
      `${ready} of ${desired}`,
      wanted === desired ? String(desired) : `${desired} (wanted ${wanted})`,
      `${group.spec.min} to ${group.spec.max}`,
      group.spec.warm === 0 ? "" : `${warm} of ${group.spec.warm}`,
      revision,
      { text: message, tone: "dim" },
    ];
  },
};

export const decisionForm: TableForm<ScalingDecision> = {
  columns: ["WHEN", "FROM", "TO", "WHO WON", "WHO WANTED WHAT", "LIMITS"],
  row: ({ metadata, spec }) => [
    metadata.createdAt,
    String(spec.from),
    String(spec.to),
    spec.winner,
    spec.wants.map(({ policy, members, reason }) => `${policy}: ${members ?? "-"} (${reason})`).join("; "),
    spec.limits.join("; "),
  ],
};

/** Its members, and the versions that they are of. */
export function groupTree(group: Group, members: readonly Instance[]): Branch[] {
  const { status } = group;
  const told: Branch[] = [
    { label: "state", value: groupState(group) },
    ...(status.message === "" ? [] : [{ label: "message", value: status.message }]),
    { label: "ready", value: `${status.ready} of ${status.desired}` },
    { label: "wanted", value: String(status.wanted) },
    ...(status.lent > 0 ? [{ label: "lent", value: String(status.lent) }] : []),
    { label: "version", value: status.revision },
    ...(status.stable ? [{ label: "proven version", value: status.stable.revision }] : []),
    ...(status.failedRevision ? [{ label: "failed version", value: status.failedRevision }] : []),
  ];
  return [...told, { label: "members", value: String(members.length), children: members.map(memberBranch) }];
}

function memberBranch({ metadata, status }: Instance): Branch {
  const ready = status.conditions.find(({ type }) => type === "Ready");
  const phase = metadata.deletedAt ? "deleting" : (status.member?.phase ?? "");
  const isReady = ready?.status === "true";
  const why = isReady ? "" : ready?.message || status.message;
  return {
    label: metadata.name,
    value: {
      text: `${phase}, version ${status.member?.revision ?? ""}, ${isReady ? "ready" : status.state}${why ? `: ${why}` : ""}`,
      tone: isReady ? "good" : "busy",
    },
  };
}
