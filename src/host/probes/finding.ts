/** What `doctor` reports: one thing about this machine, what it means for guests, and what to do about it. */

export const findingAreas = [
  "cpu",
  "kvm",
  "memory",
  "kernel",
  "cgroups",
  "storage",
  "network",
  "docker",
  "packages",
  "security",
  "time",
] as const;
export type FindingArea = (typeof findingAreas)[number];

/** `problem`: something will not work. `warning`: it works worse, or may stop working. `info`: good to know. */
type FindingLevel = "ok" | "info" | "warning" | "problem";

export interface Finding {
  area: FindingArea;
  /** One short line: what was found. */
  title: string;
  level: FindingLevel;
  /** What was seen, name by name. */
  facts: Record<string, string>;
  /** What follows for guests. */
  meaning: string;
  /** What to do; "" when nothing is to be done. */
  advice: string;
}
