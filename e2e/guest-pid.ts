import { readdir, readFile } from "node:fs/promises";
import { StrataError } from "../src/core/errors.ts";
import type { Instance } from "../src/kinds/instance.ts";

/** The first process of a container, on the host: process 1 of a PID namespace, in the guest's control group. */
export async function guestPid({ metadata }: Instance): Promise<number> {
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const [status = "", cgroup = ""] = await Promise.all(
      ["status", "cgroup"].map((file) => readFile(`/proc/${entry}/${file}`, "utf8").catch(() => "")),
    );
    if (cgroup.includes(metadata.uid) && /^NSpid:\s\d+(?:\s\d+)*\s1$/m.test(status)) return Number(entry);
  }
  throw new StrataError("NotFound", `no process of ${metadata.name} was found`);
}

/** QEMU's process, of a virtual machine. */
export async function qemuPid({ metadata }: Instance): Promise<number> {
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const [name = "", cgroup = ""] = await Promise.all(
      ["comm", "cgroup"].map((file) => readFile(`/proc/${entry}/${file}`, "utf8").catch(() => "")),
    );
    if (cgroup.includes(metadata.uid) && name.startsWith("qemu-system")) return Number(entry);
  }
  throw new StrataError("NotFound", `no QEMU of ${metadata.name} was found`);
}
