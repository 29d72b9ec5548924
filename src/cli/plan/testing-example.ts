/** The example of docs/scaling.md as a plan, for its drawing and for the test that compares both. */
import { readFile } from "node:fs/promises";
import { ownFile } from "../../core/own-files.ts";
import { groupKind } from "../../kinds/group.ts";
import { type PlannedGroup, planCapacity } from "../../kinds/scaling/plan-year.ts";
import { parseStack } from "../stack/parse-stack.ts";
import type { ShownPlan } from "./plan-text.ts";

export const scalingGuide = ownFile("docs/scaling.md");

/** Texts of all blocks in a language. */
export function blocksOf(document: string, language: string): string[] {
  return [...document.matchAll(/^```(\w*)\n(.*?)^```$/gms)].flatMap(([, is, text]) =>
    is === language && text !== undefined ? [text] : [],
  );
}

export function exampleGroups(stackText: string): PlannedGroup[] {
  const { stack } = parseStack(stackText, "docs/scaling.md");
  return Object.entries(stack.groups).map(([key, { template, labels: _, ...rest }]) => {
    const { memory, ...others } = template;
    const size = memory === undefined ? {} : { memoryMib: memory };
    const spec = groupKind.spec.parse({ ...rest, template: { ...others, ...size } });
    const { cpus, memoryMib } = spec.template;
    return { key, spec, member: { cpus, memoryMib } };
  });
}

/** A year from 2026-11-28 on hosts with 10 CPUs and 6 GiB. */
export async function examplePlan(): Promise<ShownPlan> {
  const timeZone = "Europe/Berlin";
  const at = (date: string) => Temporal.PlainDate.from(date).toZonedDateTime(timeZone).epochMilliseconds;
  const [stack = ""] = blocksOf(await readFile(scalingGuide, "utf8"), "yaml");
  const groups = exampleGroups(stack);
  const plan = planCapacity({
    groups,
    capacity: { cpus: 10, memoryMib: 6144 },
    from: at("2026-11-28"),
    until: at("2027-11-28"),
  });
  return { plan, keys: new Set(groups.map(({ key }) => key)), timeZone, bounded: true };
}
