/** Which version of its template a group goes for. Pure. */
import type { Group, MemberTemplate } from "../../kinds/group.ts";
import type { Member } from "./classify.ts";
import { revisionOf } from "./template.ts";

export interface Version {
  /** What new members get. */
  revision: string;
  template: MemberTemplate;
  /** The version of the spec failed: the one before serves on. */
  failed: { revision: string; message: string } | undefined;
  /** True: nothing is replaced, so that a person can look at what failed. */
  frozen: boolean;
}

/**
 * The spec's template, unless it failed and another one is known to work. It fails when one of its members does, as long as
 * not all members have been of it: later failures are for healing.
 */
export function versionOf(group: Group, members: readonly Member[]): Version {
  const { spec, status } = group;
  const own = revisionOf(spec.template);
  const { stable } = status;
  const fresh = { revision: own, template: spec.template, failed: undefined, frozen: false };
  if (!stable || stable.revision === own) return fresh;
  const message = failureOf(group, own, members);
  if (message === undefined) return fresh;
  return {
    revision: stable.revision,
    template: stable.template,
    failed: { revision: own, message },
    frozen: !spec.update.rollback,
  };
}

function failureOf({ spec, status }: Group, own: string, members: readonly Member[]): string | undefined {
  if (status.failedRevision === own) {
    return status.state === "stopped" && status.message !== "" ? status.message : `version ${own} failed`;
  }
  const culprit = members.find(
    (member) => member.revision === own && (member.health === "failed" || member.health === "unhealthy"),
  );
  if (!culprit) return undefined;
  const { name } = culprit.instance.metadata;
  const next = spec.update.rollback ? "back to" : "stopped; new members get";
  return `version ${own} failed: ${name}: ${culprit.why}; ${next} version ${status.stable?.revision}`.slice(
    0,
    1024,
  );
}
