/** `instance drift`: what differs between an instance and its image. */
import type { Json } from "../../core/json.ts";
import type { Difference, DriftReading, DriftReport } from "../../kinds/drift.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Cell, Output } from "../output.ts";
import { resolve } from "../resolve.ts";

export const driftCommand: CommandSpec = {
  path: "instance drift",
  group: "Instances",
  summary: "List what differs between an instance's root and its image",
  arguments: [{ name: "<instance>", summary: "name or beginning of the id", completes: "instances" }],
  options: [
    {
      flags: "--all",
      summary: "also what every guest writes by itself, and each path of what is new or gone",
    },
  ],
  examples: [
    "strata instance drift lms",
    "strata instance drift lms --all",
    "strata instance drift lms --json",
  ],
  run: drift,
};

const readings: Record<DriftReading, string> = {
  idle: "it does not run",
  frozen: "it held still, its file systems in order",
  paused: "it held still, but what it had not written to its disk yet is missing",
  running: "it went on meanwhile: each file as it was when it was read",
};

async function drift(call: Call): Promise<Output> {
  const { session, options } = call;
  const client = await session.client();
  const found = await resolve(client, instanceKind, session.project, call.args[0] ?? "", session.signal);
  const { name, project = session.project } = found.metadata;
  session.printer.progress("drift", `comparing ${name} with its image`);
  const report = await client.drift({ project, name }, { signal: session.signal });
  const all = options.flag("all");
  const shown = all ? report.differences : report.differences.filter(({ usual }) => usual === undefined);
  const hidden = report.differences.length - shown.length;
  const usual = hidden > 0 ? `; ${hidden} that every guest makes are not shown (--all)` : "";
  session.printer.note(`looked at ${report.at}: ${readings[report.reading]}${usual}`);
  if (report.more !== undefined) {
    const { length } = report.differences;
    session.printer.note(`these are the first ${length} differences by path; there are ${report.more} more`);
  }
  const lines = all ? shown.map((difference) => ({ ...difference, below: 0 })) : foldDifferences(shown);
  return {
    type: "table",
    columns: all ? ["CHANGE", "PATH", "WHAT", "USUAL"] : ["CHANGE", "PATH", "WHAT"],
    rows: lines.map((line) => rowOf(line, all)),
    empty: `${name} is as its image`,
    json: { ...report, differences: shown } satisfies DriftReport as unknown as Json,
  };
}

/** A directory that is new or gone stands for all below it; `below` says how much that is. */
export function foldDifferences(differences: readonly Difference[]): (Difference & { below: number })[] {
  const folded: (Difference & { below: number })[] = [];
  const tops = new Map<string, Difference & { below: number }>();
  for (const difference of differences) {
    const top = difference.change === "changed" ? undefined : topOf(difference, tops);
    if (top) {
      top.below++;
      continue;
    }
    const line = { ...difference, below: 0 };
    folded.push(line);
    if (difference.type === "directory" && difference.change !== "changed") tops.set(difference.path, line);
  }
  return folded;
}

function topOf<Top extends Difference>(
  { path, change }: Difference,
  tops: ReadonlyMap<string, Top>,
): Top | undefined {
  for (let slash = path.indexOf("/", 1); slash > 0; slash = path.indexOf("/", slash + 1)) {
    const top = tops.get(path.slice(0, slash));
    if (top?.change === change) return top;
  }
  return undefined;
}

function rowOf(line: Difference & { below: number }, all: boolean): Cell[] {
  const tone = { added: "good", removed: "bad", changed: "busy" } as const;
  const { change, path, aspects, below, type, usual = "" } = line;
  const what = change === "changed" ? aspects.join(", ") : type;
  const row = [{ text: change, tone: tone[change] }, path, below > 0 ? `${what}, and ${below} below` : what];
  return all ? [...row, usual] : row;
}
