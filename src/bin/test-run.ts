/** `strata test`: the static gate, the unit tests and the tests with real guests, summed up in one line. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Session } from "../cli/command.ts";
import type { Output } from "../cli/output.ts";
import { ownFile } from "../core/own-files.ts";
import { readTestPackages } from "../host/packages.ts";
import { installPackages, requireRoot } from "./packages.ts";
import { readSettings } from "./settings.ts";

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** The part of Vitest's JSON report that is used here. */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
}

const root = fileURLToPath(ownFile(""));

export async function runTests(session: Session, filters: readonly string[]): Promise<Output> {
  requireRoot("running the tests with real guests");
  const settings = readSettings(session.env);
  await installPackages(settings);
  const tests = (await readTestPackages()).map(({ name }) => name);
  await installPackages(settings, tests);
  process.chdir(root);
  // Tools start with `env node`: it must be this one, whatever else the machine has.
  process.env.PATH = `${dirname(process.execPath)}:${process.env.PATH}`;
  process.env.STRATA_REQUIRED_TESTS ??= "all";
  const reports = mkdtempSync(join(tmpdir(), "strata-test-"));
  try {
    const counts = [
      ...(filters.length === 0 ? [await runCheck(session)] : []),
      await runVitest(session, "unit", filters, join(reports, "unit.json")),
      await runVitest(session, "e2e", filters, join(reports, "e2e.json")),
    ];
    const sum = (key: keyof Counts) => counts.reduce((total, count) => total + count[key], 0);
    const total = { passed: sum("passed"), failed: sum("failed"), skipped: sum("skipped") };
    const line = `${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`;
    session.printer.output({ type: "message", text: `${line}\ntests: ${line}`, json: { ...total } });
    return { type: "done", status: total.failed === 0 && total.passed > 0 ? 0 : 1 };
  } finally {
    rmSync(reports, { recursive: true, force: true });
  }
}

/** Types, lint, layers and unused code count as one test. */
async function runCheck(session: Session): Promise<Counts> {
  const status = await session.machine.foreground(process.execPath, ["--run", "check"]);
  return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: 0 };
}

async function runVitest(
  session: Session,
  script: "unit" | "e2e",
  filters: readonly string[],
  file: string,
): Promise<Counts> {
  const reporters = [
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${file}`,
    "--passWithNoTests",
  ];
  const status = await session.machine.foreground(process.execPath, [
    "--run",
    script,
    "--",
    ...reporters,
    ...filters,
  ]);
  const counts = readReport(file);
  // A file that cannot be loaded, or a failed set-up, fails the run without failing a test.
  return status !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

function readReport(file: string): Counts {
  try {
    const report = JSON.parse(readFileSync(file, "utf8")) as Report;
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests,
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch {
    return { passed: 0, failed: 1, skipped: 0 };
  }
}
