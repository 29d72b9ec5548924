import { hasCode } from "../../core/errors.ts";
import type { NeededPackage } from "../packages.ts";
import { run } from "../run.ts";
import type { Finding } from "./finding.ts";

export interface PackageFacts {
  needed: readonly NeededPackage[];
  /** Names; undefined on a system without dpkg. */
  installed: ReadonlySet<string> | undefined;
}

/** From `dpkg-query -W -f '${db:Status-Status} ${Package}\n'`. */
export function parseInstalled(listing: string): Set<string> {
  return new Set([...listing.matchAll(/^installed (\S+)$/gm)].map(([, name = ""]) => name));
}

export async function readPackageFacts(
  needed: readonly NeededPackage[],
  signal: AbortSignal,
): Promise<PackageFacts> {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own variables
  const format = "${db:Status-Status} ${Package}\n";
  try {
    const { stdout } = await run("dpkg-query", ["-W", "-f", format], { signal, timeoutMs: 20_000 });
    return { needed, installed: parseInstalled(stdout) };
  } catch (cause) {
    if (!hasCode(cause, "Unavailable")) throw cause;
    return { needed, installed: undefined };
  }
}

export function packageFindings({ needed, installed }: PackageFacts): Finding[] {
  if (!installed) {
    return [
      {
        area: "packages",
        title: "this system has no Debian packages",
        level: "warning",
        facts: {},
        meaning: "Strata runs on Debian and Ubuntu; on other systems its tools must be there already.",
        advice: `Install what is in these packages: ${needed.map(({ name }) => name).join(" ")}.`,
      },
    ];
  }
  const missing = needed.filter(({ name }) => !installed.has(name));
  if (missing.length === 0) {
    return [
      {
        area: "packages",
        title: `all ${needed.length} packages are installed`,
        level: "ok",
        facts: {},
        meaning: "Every tool that Strata uses is there.",
        advice: "",
      },
    ];
  }
  return [
    {
      area: "packages",
      title: `${missing.length} of ${needed.length} packages are missing`,
      level: "problem",
      facts: Object.fromEntries(missing.map(({ name, purpose }) => [name, purpose])),
      meaning: "What each is for is listed with it; without it, that does not work.",
      advice: `The launcher installs them when the daemon starts; by hand: apt-get install ${missing.map(({ name }) => name).join(" ")}.`,
    },
  ];
}
