/** Control groups: which layout, and whether a group with limits can really be made. */
import { describeError } from "../../core/errors.ts";
import type { CgroupLayout, Cgroups } from "../cgroups.ts";
import type { Finding } from "./finding.ts";

export interface CgroupFacts {
  /** Undefined: they could not even be opened. */
  layout: CgroupLayout | undefined;
  /** Why a group could not be made; "" when it could. */
  failure: string;
}

/** Makes a group with limits, below one of its own beside the daemon's, and takes both away again. */
export async function readCgroups(open: () => Promise<Cgroups>, namespace: string): Promise<CgroupFacts> {
  let cgroups: Cgroups;
  try {
    cgroups = await open();
  } catch (cause) {
    return { layout: undefined, failure: describeError(cause) };
  }
  const group = `${namespace}-doctor-${process.pid}`;
  try {
    await cgroups.ensure(`${group}/guest`, { cpus: 1, memoryMib: 64, processes: 16 });
    return { layout: cgroups.layout, failure: "" };
  } catch (cause) {
    return { layout: cgroups.layout, failure: describeError(cause) };
  } finally {
    await cgroups.remove(group).catch(() => {});
  }
}

const layouts: Record<CgroupLayout, string> = {
  v2: "unified (version 2)",
  hybrid: "hybrid (version 1, with version 2 beside)",
  v1: "legacy (version 1)",
};

export function cgroupFindings(cgroups: CgroupFacts): Finding[] {
  const { layout, failure } = cgroups;
  const name = layout === undefined ? "none" : layouts[layout];
  const facts = { layout: name, ...(failure === "" ? {} : { failure }) };
  if (layout === undefined || failure !== "") {
    return [
      {
        area: "cgroups",
        title:
          layout === undefined ? "control groups cannot be used" : "no control group with limits can be made",
        level: "problem",
        facts,
        meaning: "Guests' CPU, memory and processes could not be limited, so none is started.",
        advice:
          "Run as root, outside of containers; where the memory controller is off, boot with cgroup_enable=memory.",
      },
    ];
  }
  const slow = layout === "v1";
  return [
    {
      area: "cgroups",
      title: `control groups work, ${name}`,
      level: slow ? "info" : "ok",
      facts,
      meaning: slow
        ? "Limits work. The end of a guest is noticed by looking once a second."
        : "Limits work, and the kernel tells when a guest ends.",
      advice: slow ? "Boot with systemd.unified_cgroup_hierarchy=1 for version 2." : "",
    },
  ];
}
