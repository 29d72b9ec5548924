/**
 * The DHCP and DNS processes of networks. Each has a control group of its own: what is in it is ours (a process id read
 * from a file may long belong to somebody else), it can be killed without a race, and the kernel tells when it becomes
 * empty, also after a restart of the daemon, when the process is no child of ours.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Cgroups } from "../cgroups.ts";
import { dnsmasqLimits } from "./dnsmasq-config.ts";
import type { SeenService, ServiceRole } from "./mending.ts";
import type { NetworkNames } from "./network-plan.ts";
import { runWithUs } from "./run-with-us.ts";

/** What a process is started with. */
export interface ServiceConfig {
  role: ServiceRole;
  text: string;
}

/**
 * Enters the control groups, then becomes the program. Arguments: how many `cgroup.procs` files, the files, the
 * program with its arguments. Data is only ever an argument.
 */
const enterGroups = `
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 71; shift; n=$((n - 1)); done
exec "$@"`;

const startTimeoutMs = 10_000;

export class NetworkServices {
  readonly #cgroups: Cgroups;

  constructor(cgroups: Cgroups) {
    this.#cgroups = cgroups;
  }

  group(names: NetworkNames, role: ServiceRole): string {
    return role === "dns" ? names.dnsGroup : names.dhcpGroup;
  }

  /** The running process, if there is one. `config`: what it should run with. */
  async find(names: NetworkNames, config: ServiceConfig): Promise<SeenService | undefined> {
    const pids = await this.#cgroups.pids(this.group(names, config.role));
    if (pids.length === 0) return undefined;
    const file = join(names.directory, `${config.role}.pid`);
    const pid = Number((await readFile(file, "utf8").catch(() => "")).trim());
    // DNS over TCP is answered by short-lived children with the same command line.
    if (!pids.includes(pid)) return { pid: pids[0] ?? 0, netns: 0, current: false };
    try {
      const [netns, command] = await Promise.all([
        readlink(`/proc/${pid}/ns/net`),
        readFile(`/proc/${pid}/cmdline`, "utf8"),
      ]);
      return {
        pid,
        netns: Number(/\d+/.exec(netns)?.[0]),
        current: command.split("\0").includes(`--conf-file=${configFile(names, config)}`),
      };
    } catch {
      return undefined; // it ended meanwhile
    }
  }

  async isRunning(names: NetworkNames, role: ServiceRole): Promise<boolean> {
    return (await this.#cgroups.pids(this.group(names, role))).length > 0;
  }

  /** Ends what runs, starts anew, and returns when the new process has its sockets open. */
  async restart(names: NetworkNames, config: ServiceConfig, signal: AbortSignal): Promise<void> {
    const group = this.group(names, config.role);
    await this.#cgroups.ensure(group, dnsmasqLimits);
    await this.#cgroups.kill(group);
    const file = configFile(names, config);
    for (const name of await readdir(names.directory)) {
      const path = join(names.directory, name);
      if (path !== file && name.startsWith(`${config.role}-`)) await rm(path);
    }
    await writeFile(file, config.text, { mode: 0o644 });
    const procs = this.#cgroups.procsFiles(group);
    await runWithUs(
      "sh",
      [
        ...["-c", enterGroups, "sh", String(procs.length), ...procs],
        ...["nsenter", `--net=${names.netnsPath}`, "dnsmasq", `--conf-file=${file}`],
      ],
      { signal, timeoutMs: startTimeoutMs },
    );
  }

  /** Ends both and takes their groups away. Absent is success. */
  async remove(names: NetworkNames): Promise<void> {
    for (const group of [names.dhcpGroup, names.dnsGroup]) {
      await this.#cgroups.kill(group);
      await this.#cgroups.remove(group);
    }
  }
}

/** Named for its content, so that a process's command line tells what it was started with. */
function configFile(names: NetworkNames, config: ServiceConfig): string {
  const hash = createHash("sha256").update(config.text).digest("hex").slice(0, 12);
  return join(names.directory, `${config.role}-${hash}.conf`);
}
