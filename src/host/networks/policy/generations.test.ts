import { describe, expect, it } from "vitest";
import { type Generation, GenerationReader } from "./generations.ts";

function read(...pieces: string[]): Generation[] {
  const seen: Generation[] = [];
  const reader = new GenerationReader(["inet strata", "bridge strata"], (generation) =>
    seen.push(generation),
  );
  for (const piece of pieces) reader.read(piece);
  return seen;
}

describe("GenerationReader", () => {
  it("says who changed one of the tables", () => {
    const text = [
      "add element inet strata profiles4 { 10.0.0.5 : 0x00000001 }",
      "# new generation 2 by process 20074 (nft)",
      "delete table bridge strata",
      "# new generation 3 by process 20076 (nft)",
      "",
    ].join("\n");
    expect(read(text)).toEqual([{ pid: 20_074 }, { pid: 20_076 }]);
  });

  it("does not mind other tables, names that begin alike, or what has no table", () => {
    const text = [
      "add table inet other",
      "add rule inet strata-other input handle 4 accept",
      "add rule ip strata input accept",
      "a warning of nft",
      "# new generation 2 by process 1 (nft)",
      "",
    ].join("\n");
    expect(read(text)).toEqual([]);
  });

  it("puts together what comes in pieces", () => {
    expect(read("delete rule inet str", "ata input handle 5\n# new gen", "eration 9\n")).toEqual([
      { pid: undefined },
    ]);
  });

  it("keeps no more of an endless line than it needs", () => {
    const endless = Array.from({ length: 50 }, () => "x".repeat(10_000));
    expect(
      read("add element inet strata a { ", ...endless, "}\n# new generation 2 by process 7 (nft)\n"),
    ).toEqual([{ pid: 7 }]);
  });
});
