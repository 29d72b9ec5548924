import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface TimeFacts {
  clocksource: string;
  /** Names of services that set the clock and run, or said that it is right. */
  services: string[];
}

/** Processes that set the clock, by the name the kernel knows them by. */
const timeServices = ["systemd-timesyn", "chronyd", "ntpd", "openntpd", "VBoxService"];

export async function readTime(files: HostFiles): Promise<TimeFacts> {
  const services = new Set<string>();
  for (const entry of await files.entries("proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const name = await files.text(`proc/${entry}/comm`);
    if (timeServices.includes(name)) services.add(name);
  }
  return {
    clocksource: await files.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
    services: [...services],
  };
}

export function timeFindings({ clocksource, services }: TimeFacts): Finding[] {
  const kept = services.length > 0;
  return [
    {
      area: "time",
      title: kept ? `the clock is kept right by ${services.join(", ")}` : "nothing keeps the clock right",
      level: kept ? "ok" : "info",
      facts: { clocksource: clocksource || "unknown", services: services.join(", ") || "none" },
      meaning: "Containers share this machine's clock, and virtual machines start with it.",
      advice: kept ? "" : "Unless the machine's own host does it, install systemd-timesyncd or chrony.",
    },
  ];
}
