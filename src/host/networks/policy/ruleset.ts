/**
 * A ruleset as data: what is wanted, as sets and chains, and as the text that brings nft from one to another. Elements are
 * compared by their keys and chains by their rules, so a change costs what it changes. Pure.
 */

export interface Ruleset {
  tables: readonly Table[];
}

export interface Table {
  family: "inet" | "bridge";
  name: string;
  sets: ReadonlyMap<string, ElementSet>;
  chains: ReadonlyMap<string, Chain>;
}

/** A set, or a map where elements have values. */
export interface ElementSet {
  kind: "set" | "map";
  /** `type …; flags …;` */
  declaration: string;
  /** Key, and what follows it: nothing, ` : VALUE`, or ` comment "…" : VALUE`. */
  elements: ReadonlyMap<string, string>;
}

export interface Chain {
  /** `type … hook …; policy …;` of a chain that the kernel calls; left out: only other chains do. */
  base?: string;
  rules: readonly string[];
}

/** Keeps lines short: an error of nft quotes a whole line. */
const elementsPerCommand = 32;

/** All of it in place of whatever was in its tables. */
export function renderWhole(ruleset: Ruleset): string {
  return ruleset.tables
    .map((table) => {
      const id = `${table.family} ${table.name}`;
      return `table ${id} {}\ndelete table ${id}\nadd table ${id}\n${renderChanges(id, emptyTable(table), table)}`;
    })
    .join("");
}

/** Takes the tables away; no error when they are not there. */
export function renderRemoval(tables: readonly Pick<Table, "family" | "name">[]): string {
  return tables
    .map(({ family, name }) => `table ${family} ${name} {}\ndelete table ${family} ${name}\n`)
    .join("");
}

/** From `before` to `after`, which have the same tables; "" when they are the same. */
export function renderDifference(before: Ruleset, after: Ruleset): string {
  const texts = after.tables.map((table) => {
    const old = before.tables.find(({ family, name }) => family === table.family && name === table.name);
    if (!old || !sameDeclarations(old, table)) return undefined;
    return renderChanges(`${table.family} ${table.name}`, old, table);
  });
  return texts.includes(undefined) ? renderWhole(after) : texts.join("");
}

/** What is declared cannot be changed in place. */
function sameDeclarations(before: Table, after: Table): boolean {
  for (const [name, { kind, declaration }] of after.sets) {
    const old = before.sets.get(name);
    if (old && (old.kind !== kind || old.declaration !== declaration)) return false;
  }
  for (const [name, { base }] of after.chains) {
    const old = before.chains.get(name);
    if (old && old.base !== base) return false;
  }
  return true;
}

/**
 * In this order everything exists when it is referred to, and is not referred to any more when it goes. Elements go
 * before others come, because a range may take the place of one that it overlaps.
 */
function renderChanges(id: string, before: Table, after: Table): string {
  const lines: string[] = [];
  for (const [name, { kind, declaration }] of after.sets) {
    if (!before.sets.has(name)) lines.push(`add ${kind} ${id} ${name} { ${declaration} }`);
  }
  for (const [name, { base }] of after.chains) {
    if (!before.chains.has(name))
      lines.push(`add chain ${id} ${name}${base === undefined ? "" : ` { ${base} }`}`);
  }
  for (const [name, { elements }] of after.sets) {
    const old = before.sets.get(name)?.elements ?? noElements;
    const gone = [...old].filter(([key, rest]) => elements.get(key) !== rest).map(([key]) => key);
    const come = [...elements]
      .filter(([key, rest]) => old.get(key) !== rest)
      .map(([key, rest]) => key + rest);
    lines.push(...elementCommands(`delete element ${id} ${name}`, gone));
    lines.push(...elementCommands(`add element ${id} ${name}`, come));
  }
  for (const [name, { rules }] of after.chains) {
    const old = before.chains.get(name)?.rules ?? [];
    if (old.length === rules.length && old.every((rule, index) => rule === rules[index])) continue;
    if (old.length > 0) lines.push(`flush chain ${id} ${name}`);
    for (const rule of rules) lines.push(`add rule ${id} ${name} ${rule}`);
  }
  const goneChains = [...before.chains.keys()].filter((name) => !after.chains.has(name));
  for (const name of goneChains) lines.push(`flush chain ${id} ${name}`);
  for (const [name, { kind }] of before.sets)
    if (!after.sets.has(name)) lines.push(`delete ${kind} ${id} ${name}`);
  // Elements of maps that go refer to chains that go.
  for (const name of goneChains) lines.push(`delete chain ${id} ${name}`);
  return lines.map((line) => `${line}\n`).join("");
}

function elementCommands(command: string, elements: readonly string[]): string[] {
  const commands: string[] = [];
  for (let start = 0; start < elements.length; start += elementsPerCommand) {
    commands.push(`${command} { ${elements.slice(start, start + elementsPerCommand).join(", ")} }`);
  }
  return commands;
}

const noElements: ReadonlyMap<string, string> = new Map();

function emptyTable({ family, name }: Table): Table {
  return { family, name, sets: new Map(), chains: new Map() };
}
