/** What any builder does alike: limits of a host, and the failure of a step in the words of the step. Pure. */
import { StrataError } from "../../../core/errors.ts";
import type { BuildLimits, BuildOrder } from "./image-builder.ts";

/** Of all processes and threads of a build together. */
export const maxBuildProcesses = 2048;
/** Of 100 that everything else has by default: guests come first. */
export const buildCpuWeight = 12;

/** What nobody needs to ask for (the kind's defaults): on a small host it is as much as there may be. */
const defaults = { memoryMib: 2048, cpus: 2 };

/** @throws Invalid for more than half of the host's memory, or more processors than it has. */
export function limitsOn(
  host: { memoryBytes: number | undefined; cpus: number },
  limits: BuildLimits,
): BuildLimits {
  const half = host.memoryBytes ? Math.floor(host.memoryBytes / 2 / 1024 ** 2) : Number.POSITIVE_INFINITY;
  const most = { memoryMib: half, cpus: host.cpus };
  const above = (["memoryMib", "cpus"] as const)
    .filter((name) => limits[name] > Math.max(most[name], defaults[name]))
    .map((name) => `${name} is ${limits[name]}, at most ${most[name]}`);
  if (above.length > 0) {
    const message = `spec.source.limits asks for more than this host allows: ${above.join("; ")}`;
    throw new StrataError("Invalid", message);
  }
  return {
    memoryMib: Math.min(limits.memoryMib, most.memoryMib),
    cpus: Math.min(limits.cpus, most.cpus),
  };
}

/** The last lines that a build printed. */
export class LastLines {
  readonly #lines: string[] = [];

  add(line: string): void {
    this.#lines.push(line.slice(0, 500));
    if (this.#lines.length > keptLines) this.#lines.shift();
  }

  get text(): string {
    return this.#lines.join("\n").slice(-1500);
  }
}

/**
 * Docker's predefined arguments reach every step and are no part of a cache's key: what was built with somebody's proxy must
 * not come from another build.
 */
export function hasProxy(args: BuildOrder["args"]): boolean {
  return Object.keys(args).some((name) => /^(https?|ftp|no|all)_proxy$/i.test(name));
}

const keptLines = 12;
const unreachable = /no such host|connection refused|i\/o timeout|TLS handshake|network is unreachable/i;

/** A step's failure in the words of the step. */
export function explainFailure(error: string, printed: LastLines): StrataError {
  const said = printed.text;
  const code = unreachable.test(error) ? "Unavailable" : "Invalid";
  return new StrataError(
    code,
    `the Dockerfile cannot be built: ${error.slice(0, 500)}${said ? `\n${said}` : ""}`,
  );
}
