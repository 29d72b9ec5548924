/**
 * The little that Strata reads of a Dockerfile itself: which images of Strata's own it builds on (`FROM strata/NAME`,
 * `COPY --from=strata/NAME`, or an ARG with such a value). Everything else is the builder's. Pure.
 */

const base = /^strata\/([a-z0-9]([a-z0-9-]*[a-z0-9])?)$/;

export interface BuildText {
  dockerfile: string;
  args: Readonly<Record<string, string>>;
}

/** Names of the images of Strata that it names, sorted. */
export function basesOf(text: BuildText): string[] {
  const names = new Set<string>();
  replaceBases(text, (name) => {
    names.add(name);
    return name;
  });
  return [...names].sort();
}

/** The same text with other names for Strata's images; nothing else changes. */
export function replaceBases({ dockerfile, args }: BuildText, nameOf: (name: string) => string): BuildText {
  const named = (reference: string) => {
    const name = base.exec(reference)?.[1];
    return name === undefined ? reference : nameOf(name);
  };
  const patterns = [
    /^(\s*FROM\s+(?:--\S+\s+)*)([^\s\\]+)/i,
    /^(\s*(?:COPY|ADD)\s+(?:--\S+\s+)*?--from=)([^\s\\]+)/i,
    /^(\s*ARG\s+\w+=)([^\s\\]+)/i,
  ];
  const lines = dockerfile.split("\n").map((line) => {
    let text = line;
    for (const pattern of patterns)
      text = text.replace(pattern, (_all, before: string, reference: string) => before + named(reference));
    return text;
  });
  return {
    dockerfile: lines.join("\n"),
    args: Object.fromEntries(Object.entries(args).map(([name, value]) => [name, named(value)])),
  };
}
