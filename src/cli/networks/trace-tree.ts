/** A trace on the terminal. Pure. */
import type { GroupVerdict, RuleVerdict } from "../../kinds/reachability/groups.ts";
import type { Trace, TraceStep } from "../../kinds/reachability/trace.ts";
import type { Branch } from "../output.ts";

/** Of a group with many rules, those are left out that were refused first. */
const maxRulesShown = 12;

export function traceBranches(trace: Trace): Branch[] {
  const packet = [trace.protocol, ...(trace.port === undefined ? [] : [trace.port])].join(" ");
  return [
    { label: `${packet} from ${trace.from} to ${trace.to}` },
    ...trace.steps.map(stepBranch),
    { label: "verdict", value: { text: trace.verdict, tone: trace.passes ? "good" : "bad" } },
  ];
}

const marks = { pass: "✓", drop: "✗", note: "·" } as const;
const tones = { pass: "good", drop: "bad", note: "dim" } as const;

function stepBranch({ stage, result, text, groups = [] }: TraceStep): Branch {
  return {
    label: `${marks[result]} ${stage.padEnd(11)}`,
    value: { text, tone: tones[result] },
    ...(groups.length > 0 ? { children: groups.flatMap(groupBranches) } : {}),
  };
}

function groupBranches({ group, rules }: GroupVerdict): Branch[] {
  if (rules.length === 0) return [{ label: `group ${group} has no rule in this direction` }];
  const hidden = Math.max(0, rules.length - maxRulesShown);
  return [
    { label: `group ${group}` },
    ...(hidden > 0 ? [{ label: `  (${hidden} rules that do not match)` }] : []),
    ...rules.slice(hidden).map(ruleBranch),
  ];
}

function ruleBranch({ number, rule, matches, because }: RuleVerdict): Branch {
  const why = matches ? "matches" : `does not match: ${because}`;
  return { label: `  rule ${number}: ${rule}`, value: { text: why, tone: matches ? "good" : "dim" } };
}
