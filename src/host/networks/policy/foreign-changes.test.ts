import { describe, expect, it } from "vitest";
import { ForeignChanges, withMarks } from "./foreign-changes.ts";

const marks = { table: "inet marks", token: "k3y" };

function read(...pieces: string[]): string[] {
  const seen: string[] = [];
  const tables = ["inet strata", "bridge strata"];
  const reader = new ForeignChanges({ tables, marks, onChange: (line) => seen.push(line) });
  for (const piece of pieces) reader.read(piece);
  return seen;
}

describe("ForeignChanges", () => {
  const foreign = "delete rule inet strata input handle 5\n";
  const ours = [
    'add rule inet marks marks handle 2 return comment "begin k3y"\n',
    foreign,
    "add rule bridge strata from-ports handle 9 drop\n",
    'add rule inet marks marks handle 3 return comment "end k3y"\n',
  ].join("");

  it("finds what is outside of our own transactions", () => {
    expect(read(ours)).toEqual([]);
    expect(read(foreign)).toEqual([foreign.trim()]);
    expect(read(ours, foreign, ours)).toEqual([foreign.trim()]);
    expect(read(foreign, ours)).toEqual([foreign.trim()]);
  });

  it("takes another process' marks for what they are", () => {
    expect(read(ours.replaceAll("k3y", "0ther"))).toHaveLength(2);
  });

  it("does not mind other tables, names that begin alike, or what is no rule", () => {
    expect(
      read(
        "add rule inet other input handle 4 accept\nadd rule inet strata-other input handle 4 accept\nadd table inet strata\na warning\n",
      ),
    ).toEqual([]);
  });

  it("puts together what comes in pieces, and keeps no more of an endless line than it needs", () => {
    expect(read("delete rule inet str", "ata input handle 5\n")).toHaveLength(1);
    const endless = Array.from({ length: 50 }, () => "x".repeat(10_000));
    expect(read("add rule inet strata a ", ...endless, "\n", ours)).toHaveLength(1);
  });
});

describe("withMarks", () => {
  it("marks what changes rules, and nothing else", () => {
    const elements = "add element inet strata a { 1 }\ndelete element inet strata a { 2 }\n";
    expect(withMarks(elements, marks)).toBe(elements);
    expect(withMarks("add rule inet strata a drop\n", marks)).toBe(
      [
        "add table inet marks",
        "add chain inet marks marks",
        "flush chain inet marks marks",
        'add rule inet marks marks return comment "begin k3y"',
        "add rule inet strata a drop",
        'add rule inet marks marks return comment "end k3y"',
        "",
      ].join("\n"),
    );
  });
});
