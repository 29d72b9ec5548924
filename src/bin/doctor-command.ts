/** `strata doctor`: what this machine can do, proven where it can be; what follows from it, and what to do about it. */
import { existsSync } from "node:fs";
import type { Session } from "../cli/command.ts";
import type { Branch, Output, Tone } from "../cli/output.ts";
import { asJson } from "../cli/show.ts";
import { systemClock } from "../core/clock.ts";
import { openCgroups } from "../host/kernel-cgroups.ts";
import type { Finding } from "../host/probes/finding.ts";
import { runProbes } from "../host/probes/run-probes.ts";
import { proveDocker, proveKvm } from "./real-host-parts.ts";
import type { Settings } from "./settings.ts";

const tones: Record<Finding["level"], Tone> = { ok: "good", info: "dim", warning: "busy", problem: "bad" };

/** Exit status 1 when something will not work. */
export async function doctorCommand(session: Session, settings: Settings): Promise<Output> {
  const { printer, signal } = session;
  const isRoot = process.getuid?.() === 0;
  if (!isRoot)
    printer.note("without root some of it cannot be looked at: run `sudo strata doctor` for all of it");
  const findings = await runProbes({
    config: settings,
    openCgroups: () => openCgroups({ clock: systemClock }),
    probeKvm: isRoot ? () => proveKvm(settings, signal).catch(() => undefined) : undefined,
    probeDocker:
      isRoot && existsSync(settings.dockerSocket) ? () => proveDocker(settings, signal) : undefined,
    signal,
  });
  const problems = findings.filter(({ level }) => level === "problem").length;
  const warnings = findings.filter(({ level }) => level === "warning").length;
  printer.output({ type: "tree", branches: branches(findings), json: asJson({ findings }) });
  printer.note(`${problems} problems, ${warnings} warnings`);
  return { type: "done", status: problems > 0 ? 1 : 0 };
}

function branches(findings: readonly Finding[]): Branch[] {
  const areas = [...new Set(findings.map(({ area }) => area))];
  return areas.map((area) => ({
    label: area,
    children: findings.filter((finding) => finding.area === area).map(branch),
  }));
}

function branch({ level, title, facts, meaning, advice }: Finding): Branch {
  const seen = Object.entries(facts).map(([label, value]): Branch => ({ label, value }));
  return {
    label: level,
    value: { text: title, tone: tones[level] },
    children: [
      ...(meaning ? [{ label: "means", value: meaning }] : []),
      ...(advice ? [{ label: "do", value: { text: advice, tone: tones[level] } }] : []),
      ...(seen.length > 0 ? [{ label: "seen", children: seen }] : []),
    ],
  };
}
