import { readFileSync } from "node:fs";
import { arch, availableParallelism, hostname, release, totalmem } from "node:os";

/** What a machine has, as its operating system tells. */
export interface Machine {
  cpus: number;
  memoryMib: number;
  /** For people. */
  facts: Record<string, string>;
}

export function thisMachine(): Machine {
  return {
    cpus: availableParallelism(),
    memoryMib: Math.floor(totalmem() / 1024 ** 2),
    facts: {
      hostname: hostname(),
      architecture: arch(),
      kernel: release(),
      "operating system": operatingSystem(),
    },
  };
}

function operatingSystem(): string {
  try {
    const line = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readFileSync("/etc/os-release", "utf8"));
    return line?.[1] ?? "unknown";
  } catch {
    return "unknown";
  }
}
