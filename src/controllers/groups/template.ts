import { createHash } from "node:crypto";
import { canonicalJson, type Json } from "../../core/json.ts";
import type { MemberTemplate } from "../../kinds/group.ts";
import type { InstanceSpec } from "../../kinds/instance.ts";

const known = new WeakMap<object, string>();

/** The version that a template is: equal templates have equal ones. */
export function revisionOf(template: MemberTemplate): string {
  const before = known.get(template);
  if (before !== undefined) return before;
  const text = canonicalJson(template as unknown as Json);
  const revision = createHash("sha256").update(text).digest("hex").slice(0, 10);
  known.set(template, revision);
  return revision;
}

/** What a member was made from; later changes of the member count, too. */
export function templateOf(spec: InstanceSpec): MemberTemplate {
  const {
    ipAddress: _4,
    ipv6Address: _6,
    protected: _kept,
    power: _power,
    restarts: _restarts,
    rebuilds: _rebuilds,
    ...template
  } = spec;
  return template;
}
