import { formatMib } from "../../core/units.ts";
import type { Finding } from "./finding.ts";

export interface MemoryFacts {
  totalMib: number;
  availableMib: number;
  swapMib: number;
}

/** From /proc/meminfo. */
export function parseMemory(meminfo: string): MemoryFacts {
  const mib = (name: string) =>
    Math.floor(Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(meminfo)?.[1] ?? 0) / 1024);
  return { totalMib: mib("MemTotal"), availableMib: mib("MemAvailable"), swapMib: mib("SwapTotal") };
}

const littleMib = 2048;
const fewMib = 512;

export function memoryFindings(memory: MemoryFacts): Finding[] {
  const facts = {
    total: formatMib(memory.totalMib),
    available: formatMib(memory.availableMib),
    swap: formatMib(memory.swapMib),
  };
  const common = { area: "memory", facts } as const;
  if (memory.availableMib < fewMib) {
    return [
      {
        ...common,
        title: `only ${facts.available} of memory are available`,
        level: "problem",
        meaning: "New guests will be refused or killed by the kernel.",
        advice: "End what is not needed, or add memory.",
      },
    ];
  }
  const little = memory.totalMib < littleMib;
  return [
    {
      ...common,
      title: `${facts.available} of ${facts.total} of memory are available`,
      level: little ? "warning" : "ok",
      meaning: little
        ? "Enough for a few containers; a virtual machine takes its whole memory from it."
        : "Memory is never promised twice: what is promised to guests is at most what the machine has.",
      advice: little ? "Add memory before running virtual machines." : "",
    },
  ];
}
