import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Ruleset, renderDifference, renderRemoval, renderWhole } from "./ruleset.ts";

interface Simple {
  sets: Record<string, Record<string, string>>;
  chains: Record<string, string[]>;
}

const rulesetOf = ({ sets, chains }: Simple): Ruleset => ({
  tables: [
    {
      family: "inet",
      name: "t",
      sets: new Map(
        Object.entries(sets).map(([name, elements]) => [
          name,
          { kind: "map", declaration: "type mark : mark;", elements: new Map(Object.entries(elements)) },
        ]),
      ),
      chains: new Map(Object.entries(chains).map(([name, rules]) => [name, { rules }])),
    },
  ],
});

/** As much of nft as these texts need; refuses what the kernel would refuse. */
function carryOut(text: string, before: Simple): Simple {
  const state = structuredClone(before);
  const must = (condition: boolean, line: string) => {
    if (!condition) throw new Error(`refused: ${line}`);
  };
  const verbs: Record<string, (name: string, rest: string, line: string) => void> = {
    "add map": (name) => {
      state.sets[name] ??= {};
    },
    "add chain": (name) => {
      state.chains[name] ??= [];
    },
    "delete map": (name, _, line) => {
      must(name in state.sets, line);
      delete state.sets[name];
    },
    "flush chain": (name, _, line) => {
      must(name in state.chains, line);
      state.chains[name] = [];
    },
    "delete chain": (name, _, line) => {
      must(state.chains[name]?.length === 0, line);
      const values = Object.values(state.sets).flatMap((elements) => Object.values(elements));
      must(!values.includes(` : goto ${name}`), line);
      delete state.chains[name];
    },
    "add rule": (name, rest, line) => {
      must(name in state.chains, line);
      state.chains[name]?.push(rest);
    },
    "add element": (name, rest, line) => {
      for (const element of rest.slice(2, -2).split(", ")) {
        const [key = "", value] = element.split(" : ");
        must(state.sets[name] !== undefined && !(key in state.sets[name]), line);
        if (state.sets[name]) state.sets[name][key] = ` : ${value}`;
      }
    },
    "delete element": (name, rest, line) => {
      for (const key of rest.slice(2, -2).split(", ")) {
        must(state.sets[name] !== undefined && key in state.sets[name], line);
        delete state.sets[name]?.[key];
      }
    },
  };
  for (const line of text.split("\n").filter((line) => line !== "")) {
    const match = /^(\w+ \w+) inet t (\S+) ?(.*)$/.exec(line);
    if (match) verbs[match[1] ?? ""]?.(match[2] ?? "", match[3] ?? "", line);
    else if (line === "delete table inet t") Object.assign(state, { sets: {}, chains: {} });
    else must(/^(add )?table inet t( \{\})?$/.test(line), line);
  }
  return state;
}

const simple = fc
  .record({
    sets: fc.dictionary(
      fc.constantFrom("a", "b", "c"),
      fc.dictionary(
        fc.nat(5).map(String),
        fc.constantFrom("1", "2", "goto x", "goto y").map((value) => ` : ${value}`),
        { noNullPrototype: true },
      ),
      { noNullPrototype: true },
    ),
    chains: fc.dictionary(
      fc.constantFrom("x", "y", "z"),
      fc.array(fc.constantFrom("accept", "drop", "jump x"), { maxLength: 3 }),
      { noNullPrototype: true },
    ),
  })
  // Verdicts lead to chains that are there.
  .map(({ sets, chains }) => ({
    sets: Object.fromEntries(
      Object.entries(sets).map(([name, elements]) => [
        name,
        Object.fromEntries(
          Object.entries(elements).filter(
            ([, value]) => !value.startsWith(" : goto") || value.slice(8) in chains,
          ),
        ),
      ]),
    ),
    chains,
  }));

describe("a ruleset's difference", () => {
  it("leads from any ruleset to any other, and says nothing twice", () => {
    fc.assert(
      fc.property(simple, simple, (before, after) => {
        const text = renderDifference(rulesetOf(before), rulesetOf(after));
        expect(carryOut(text, before)).toEqual(after);
        expect(carryOut(renderWhole(rulesetOf(after)), before)).toEqual(after);
        expect(renderDifference(rulesetOf(after), rulesetOf(after))).toBe("");
      }),
      { numRuns: 1_000 },
    );
  });

  it("is small for a small change of a large set", () => {
    const elements = Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [String(index), " : 1"]));
    const before = { sets: { a: elements }, chains: { x: ["accept"] } };
    const after = { sets: { a: { ...elements, 7: " : 2" } }, chains: { x: ["accept"] } };
    expect(renderDifference(rulesetOf(before), rulesetOf(after))).toBe(
      "delete element inet t a { 7 }\nadd element inet t a { 7 : 2 }\n",
    );
  });

  it("replaces everything when a declaration changed", () => {
    const before = rulesetOf({ sets: { a: {} }, chains: {} });
    const [table] = rulesetOf({ sets: {}, chains: {} }).tables;
    if (!table) throw new Error("no table");
    const set = {
      kind: "set" as const,
      declaration: "type ipv4_addr;",
      elements: new Map([["10.0.0.1", ""]]),
    };
    const after = { tables: [{ ...table, sets: new Map([["a", set]]) }] };
    expect(renderDifference(before, after)).toBe(
      [
        "table inet t {}",
        "delete table inet t",
        "add table inet t",
        "add set inet t a { type ipv4_addr; }",
        "add element inet t a { 10.0.0.1 }",
        "",
      ].join("\n"),
    );
  });

  it("is taken away whether or not it is there", () => {
    expect(renderRemoval([{ family: "inet", name: "t" }])).toBe("table inet t {}\ndelete table inet t\n");
  });
});
