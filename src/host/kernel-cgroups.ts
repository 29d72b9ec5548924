/**
 * Cgroups on the kernel's own file systems. The layout is found once, when opened: each controller lives in a
 * hierarchy of version 1 or 2, and everything below works per controller, so that unified, hybrid and legacy hosts
 * (and mixtures of them) go through the same code.
 *
 * Groups are made in the hierarchies of the three limits and in the tracking hierarchy (version 2 where there is one:
 * it tells who is inside, notifies, and kills at once). Others, such as LXC, may add the same group to further
 * hierarchies; `remove` takes it out of all.
 */
import { constants, type FSWatcher, watch as watchFile } from "node:fs";
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { childGroups, isErrno, isMissing, readIfThere, subgroups } from "./cgroup-files.ts";
import { createCgroupMeter } from "./cgroup-meter.ts";
import type { CgroupLayout, CgroupLimits, CgroupMeter, Cgroups } from "./cgroups.ts";

/** What a directory tree cannot do by itself; replaced in tests that run on one. */
export interface CgroupKernel {
  /** Makes one directory; EEXIST is thrown. */
  mkdir(path: string): Promise<unknown>;
  /** Removes a group that has no sub-groups. */
  rmdir(path: string): Promise<unknown>;
  /** Sends SIGKILL. */
  kill(pid: number): void;
}

export interface KernelCgroupsOptions {
  clock: Clock;
  /** Where the hierarchies are mounted. Default /sys/fs/cgroup. */
  root?: string;
  kernel?: CgroupKernel;
}

type ControllerName = "cpu" | "memory" | "pids";
type Version = 1 | 2;
export interface Hierarchy {
  path: string;
  version: Version;
  controllers: string[];
}

const controllerNames: readonly ControllerName[] = ["cpu", "memory", "pids"];
const groupPattern = /^\/?[A-Za-z0-9][A-Za-z0-9._-]*(?:\/[A-Za-z0-9][A-Za-z0-9._-]*)*$/;
const cpuPeriodMicros = 100_000;
/** The kernel's own: 100 of version 2 are the 1,024 of version 1. */
const defaultWeight = 100;
const killTimeoutMs = 10_000;
const removeTimeoutMs = 2_000;
const legacyWatchMs = 1_000;
/** A missing file is an error, never made. */
const writeFlags = constants.O_WRONLY | constants.O_TRUNC;

const realKernel: CgroupKernel = {
  mkdir: (path) => mkdir(path, 0o755),
  rmdir: (path) => rmdir(path),
  kill: (pid) => process.kill(pid, "SIGKILL"),
};

/**
 * Finds out how the host mounts its hierarchies.
 * @throws Unavailable when there are none, or when a controller that limits need is missing.
 */
export async function openCgroups(options: KernelCgroupsOptions): Promise<Cgroups> {
  const root = options.root ?? "/sys/fs/cgroup";
  const hierarchies = await findHierarchies(root);
  const unified = hierarchies.find((hierarchy) => hierarchy.version === 2);
  const layout = unified === undefined ? "v1" : unified.path === root ? "v2" : "hybrid";
  return new KernelCgroups(options.clock, options.kernel ?? realKernel, layout, hierarchies);
}

class KernelCgroups implements Cgroups {
  readonly layout: CgroupLayout;
  readonly #clock: Clock;
  readonly #kernel: CgroupKernel;
  readonly #hierarchies: readonly Hierarchy[];
  readonly #tracking: Hierarchy;
  readonly #limiting: ReadonlyMap<ControllerName, Hierarchy>;

  constructor(clock: Clock, kernel: CgroupKernel, layout: CgroupLayout, hierarchies: readonly Hierarchy[]) {
    this.#clock = clock;
    this.#kernel = kernel;
    this.layout = layout;
    this.#hierarchies = hierarchies;
    this.#limiting = new Map(controllerNames.map((name) => [name, requireController(hierarchies, name)]));
    this.#tracking =
      hierarchies.find(({ version }) => version === 2) ?? requireController(hierarchies, "pids");
  }

  async ensure(group: string, limits: CgroupLimits): Promise<void> {
    const parts = partsOf(group);
    for (const hierarchy of this.#memberships()) await this.#ensureIn(hierarchy, parts);
    const name = parts.join("/");
    await this.#write(this.#controllerPath("pids", name, "pids.max"), limits.processes ?? "max");
    await this.#limitMemory(name, limits.memoryMib);
    await this.#limitCpu(name, limits.cpus);
    if (limits.cpuWeight !== undefined) await this.#weighCpu(name, limits.cpuWeight);
  }

  procsFiles(group: string): string[] {
    const name = partsOf(group).join("/");
    return this.#memberships().map((hierarchy) => join(hierarchy.path, name, "cgroup.procs"));
  }

  async pids(group: string): Promise<number[]> {
    const top = join(this.#tracking.path, ...partsOf(group));
    const found = new Set<number>();
    for (const path of [top, ...(await subgroups(top))]) {
      for (const line of (await readIfThere(join(path, "cgroup.procs"))).split("\n")) {
        if (line !== "") found.add(Number(line));
      }
    }
    return [...found];
  }

  async isPopulated(group: string): Promise<boolean> {
    if (this.#tracking.version === 1) return (await this.pids(group)).length > 0;
    return isPopulatedText(await readIfThere(join(this.#tracking.path, ...partsOf(group), "cgroup.events")));
  }

  async kill(group: string): Promise<void> {
    const name = partsOf(group).join("/");
    if (!(await this.isPopulated(name))) return;
    const deadline = this.#clock.monotonicMs() + killTimeoutMs;
    const revive = await this.#forbidForks(name);
    try {
      for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
        await this.#killOnce(name);
        if (!(await this.isPopulated(name))) return;
        if (this.#clock.monotonicMs() >= deadline) break;
        await this.#clock.sleep(waitMs);
      }
    } finally {
      await revive();
    }
    const left = await this.pids(name);
    throw new StrataError(
      "Timeout",
      `the processes of cgroup ${name} did not end within ${killTimeoutMs / 1000} s of being killed; they probably wait for a device or a network file system`,
      { detail: `left: ${left.slice(0, 20).join(" ")}` },
    );
  }

  async remove(group: string): Promise<void> {
    const name = partsOf(group).join("/");
    for (const hierarchy of this.#hierarchies) {
      const top = join(hierarchy.path, name);
      const paths = [top, ...(await subgroups(top))].reverse();
      for (const path of paths) await this.#removeOne(path, name);
    }
  }

  async list(parent: string): Promise<string[]> {
    const name = partsOf(parent).join("/");
    const names = new Set<string>();
    for (const { path } of this.#hierarchies) {
      for (const child of await childGroups(join(path, name))) names.add(child);
    }
    return [...names].sort();
  }

  async usage(group: string): Promise<{ memoryBytes: number; cpuMicros: number; processes: number }> {
    const name = partsOf(group).join("/");
    const memory = this.#version("memory") === 2 ? "memory.current" : "memory.usage_in_bytes";
    try {
      return {
        memoryBytes: Number(await readFile(this.#controllerPath("memory", name, memory), "utf8")),
        cpuMicros: await this.#cpuMicros(name),
        processes: Number(await readFile(this.#controllerPath("pids", name, "pids.current"), "utf8")),
      };
    } catch (cause) {
      if (!isMissing(cause)) throw cause;
      throw new StrataError("NotFound", `cgroup ${name} does not exist`, { cause });
    }
  }

  meter(group: string): CgroupMeter {
    return createCgroupMeter(this.#hierarchies, partsOf(group).join("/"));
  }

  watch(group: string, onChange: (populated: boolean) => void): () => void {
    const name = partsOf(group).join("/");
    return this.#tracking.version === 2
      ? this.#watchEvents(name, onChange)
      : this.#watchByLooking(name, onChange);
  }

  /** Hierarchies in which our groups are made; the tracking one first, so that who entered any is seen. */
  #memberships(): Hierarchy[] {
    const accounting = this.#hierarchies.filter(({ controllers }) => controllers.includes("cpuacct"));
    return [...new Set([this.#tracking, ...this.#limiting.values(), ...accounting])];
  }

  async #ensureIn(hierarchy: Hierarchy, parts: readonly string[]): Promise<void> {
    let path = hierarchy.path;
    for (const part of parts) {
      if (hierarchy.version === 2) await this.#enableControllers(hierarchy, path);
      path = join(path, part);
      try {
        await this.#kernel.mkdir(path);
      } catch (cause) {
        if (!isErrno(cause, "EEXIST")) throw unavailable(`cannot make the cgroup ${path}`, cause);
      }
    }
  }

  /** Version 2: a group has only the controllers that its parent passes on. */
  async #enableControllers(hierarchy: Hierarchy, parent: string): Promise<void> {
    const limiting = controllerNames.filter((name) => this.#limiting.get(name) === hierarchy);
    // For what it counts; not every host offers it.
    const offersIo = (await readIfThere(join(parent, "cgroup.controllers"))).split(/\s+/).includes("io");
    const wanted = offersIo ? [...limiting, "io"] : limiting;
    const file = join(parent, "cgroup.subtree_control");
    const enabled = (await readIfThere(file)).split(/\s+/);
    const missing = wanted.filter((name) => !enabled.includes(name));
    if (missing.length === 0) return;
    try {
      await writeFile(file, missing.map((name) => `+${name}`).join(" "), { flag: writeFlags });
    } catch (cause) {
      throw unavailable(
        `cannot enable the cgroup controllers ${missing.join(", ")} below ${parent}; when Strata itself runs in a container, its processes must be in a sub-group of their own`,
        cause,
      );
    }
  }

  async #limitMemory(name: string, memoryMib: number | undefined): Promise<void> {
    if (this.#version("memory") === 2) {
      const bytes = memoryMib === undefined ? "max" : memoryMib * 1024 ** 2;
      if (bytes !== "max") await this.#makeRoom(name, bytes);
      await this.#write(this.#controllerPath("memory", name, "memory.max"), bytes);
      // Without this a guest would continue beyond its limit on the host's swap.
      const swap = memoryMib === undefined ? "max" : 0;
      await this.#writeIfThere(this.#controllerPath("memory", name, "memory.swap.max"), swap);
      return;
    }
    const bytes = memoryMib === undefined ? -1 : memoryMib * 1024 ** 2;
    const both = this.#controllerPath("memory", name, "memory.memsw.limit_in_bytes");
    const memory = this.#controllerPath("memory", name, "memory.limit_in_bytes");
    try {
      await writeFile(memory, String(bytes), { flag: writeFlags });
    } catch (cause) {
      if (isErrno(cause, "EBUSY")) throw inUse(name, bytes);
      // The kernel keeps memsw >= memory at every moment: growing starts with memsw, shrinking ends with it.
      if (!isErrno(cause, "EINVAL")) throw unavailable(`cannot set ${memory} to ${bytes}`, cause);
      await this.#writeIfThere(both, bytes);
      await this.#write(memory, bytes);
    }
    await this.#writeIfThere(both, bytes);
  }

  /** Version 2 kills whoever is above a new limit; version 1 refuses it. Here it is refused as well. */
  async #makeRoom(name: string, bytes: number): Promise<void> {
    const used = async () =>
      Number(await readIfThere(this.#controllerPath("memory", name, "memory.current")));
    if ((await used()) <= bytes) return;
    const high = this.#controllerPath("memory", name, "memory.high");
    // Caches are given up before the write returns.
    await this.#writeIfThere(high, bytes);
    try {
      if ((await used()) > bytes) throw inUse(name, bytes);
    } finally {
      await this.#writeIfThere(high, "max");
    }
  }

  async #limitCpu(name: string, cpus: number | undefined): Promise<void> {
    const quota = cpus === undefined ? undefined : Math.round(cpus * cpuPeriodMicros);
    if (this.#version("cpu") === 2) {
      await this.#write(this.#controllerPath("cpu", name, "cpu.max"), `${quota ?? "max"} ${cpuPeriodMicros}`);
      return;
    }
    await this.#write(this.#controllerPath("cpu", name, "cpu.cfs_period_us"), cpuPeriodMicros);
    await this.#write(this.#controllerPath("cpu", name, "cpu.cfs_quota_us"), quota ?? -1);
  }

  async #cpuMicros(name: string): Promise<number> {
    if (this.#version("cpu") === 2) {
      const stat = await readFile(this.#controllerPath("cpu", name, "cpu.stat"), "utf8");
      return Number(/^usage_usec (\d+)$/m.exec(stat)?.[1] ?? 0);
    }
    const accounting = requireController(this.#hierarchies, "cpuacct");
    return Math.round(Number(await readFile(join(accounting.path, name, "cpuacct.usage"), "utf8")) / 1000);
  }

  /**
   * Version 1 has no way to kill a group at once: while it is being emptied, it may not fork, and what a guest froze
   * is thawed, because frozen processes do not die. Returns what allows forks again.
   */
  async #forbidForks(name: string): Promise<() => Promise<void>> {
    for (const hierarchy of this.#hierarchies) {
      if (hierarchy.version !== 1 || !hierarchy.controllers.includes("freezer")) continue;
      const top = join(hierarchy.path, name);
      for (const path of [top, ...(await subgroups(top))]) {
        await this.#writeIfThere(join(path, "freezer.state"), "THAWED");
      }
    }
    if (await this.#hasKillFile(name)) return async () => {};
    const file = this.#controllerPath("pids", name, "pids.max");
    const before = (await readIfThere(file)).trim();
    if (before === "") return async () => {};
    await this.#writeIfThere(file, 0);
    return () => this.#writeIfThere(file, before);
  }

  async #hasKillFile(name: string): Promise<boolean> {
    if (this.#tracking.version === 1) return false;
    const entries = await readdir(join(this.#tracking.path, name)).catch((): string[] => []);
    return entries.includes("cgroup.kill");
  }

  async #killOnce(name: string): Promise<void> {
    if (await this.#hasKillFile(name)) {
      await this.#writeIfThere(join(this.#tracking.path, name, "cgroup.kill"), 1);
      return;
    }
    for (const pid of await this.pids(name)) {
      try {
        if (pid > 1) this.#kernel.kill(pid);
      } catch (cause) {
        if (!isErrno(cause, "ESRCH")) throw cause;
      }
    }
  }

  async #removeOne(path: string, name: string): Promise<void> {
    const deadline = this.#clock.monotonicMs() + removeTimeoutMs;
    for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 50)) {
      try {
        await this.#kernel.rmdir(path);
        return;
      } catch (cause) {
        if (isMissing(cause)) return;
        if (!isErrno(cause, "EBUSY")) throw unavailable(`cannot remove the cgroup ${path}`, cause);
        // The last process may still be on its way out of the group.
        if ((await this.isPopulated(name)) || this.#clock.monotonicMs() >= deadline) {
          throw new StrataError("Conflict", `cgroup ${name} still has processes and cannot be removed`, {
            cause,
            detail: path,
          });
        }
      }
      await this.#clock.sleep(waitMs);
    }
  }

  async #weighCpu(name: string, weight: number): Promise<void> {
    const v2 = this.#version("cpu") === 2;
    const file = this.#controllerPath("cpu", name, v2 ? "cpu.weight" : "cpu.shares");
    await this.#writeIfThere(file, v2 ? weight : Math.max(2, Math.round((weight * 1024) / defaultWeight)));
  }

  #watchEvents(name: string, onChange: (populated: boolean) => void): () => void {
    const file = join(this.#tracking.path, name, "cgroup.events");
    let ended = false;
    let watcher: FSWatcher;
    const end = () => {
      ended = true;
      watcher.close();
    };
    try {
      watcher = watchFile(file, { persistent: false });
    } catch (cause) {
      throw new StrataError("NotFound", `cannot watch cgroup ${name}`, { cause });
    }
    const look = async () => {
      const text = await readIfThere(file);
      if (ended) return;
      onChange(isPopulatedText(text));
    };
    watcher.on("change", () => void look());
    watcher.on("error", end);
    return end;
  }

  #watchByLooking(name: string, onChange: (populated: boolean) => void): () => void {
    let ended = false;
    let cancel = () => {};
    let before: boolean | undefined;
    const look = async () => {
      const populated = await this.isPopulated(name).catch(() => before ?? false);
      if (ended) return;
      if (before !== undefined && before !== populated) onChange(populated);
      before = populated;
      if (!ended) cancel = this.#clock.after(legacyWatchMs, () => void look());
    };
    void look();
    return () => {
      ended = true;
      cancel();
    };
  }

  #version(controller: ControllerName): Version {
    return requireController(this.#hierarchies, controller).version;
  }

  #controllerPath(controller: ControllerName, name: string, file: string): string {
    return join(requireController(this.#hierarchies, controller).path, name, file);
  }

  async #write(file: string, value: string | number): Promise<void> {
    try {
      await writeFile(file, String(value), { flag: writeFlags });
    } catch (cause) {
      throw unavailable(`cannot set ${file} to ${value}`, cause);
    }
  }

  /** For files that some kernels or hosts do not have. */
  async #writeIfThere(file: string, value: string | number): Promise<void> {
    try {
      await writeFile(file, String(value), { flag: writeFlags });
    } catch (cause) {
      if (!isMissing(cause)) throw unavailable(`cannot set ${file} to ${value}`, cause);
    }
  }
}

async function findHierarchies(root: string): Promise<Hierarchy[]> {
  const unified = await readIfThere(join(root, "cgroup.controllers"));
  if (unified !== "") return [{ path: root, version: 2, controllers: unified.trim().split(/\s+/) }];
  const hierarchies: Hierarchy[] = [];
  const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    // Controllers that share a hierarchy have one directory, "cpu,cpuacct", and symbolic links to it.
    if (!entry.isDirectory()) continue;
    const path = join(root, entry.name);
    const files = await readdir(path).catch((): string[] => []);
    if (!files.includes("cgroup.procs")) continue;
    const version = files.includes("cgroup.controllers") ? 2 : 1;
    const controllers =
      version === 1
        ? entry.name.split(",")
        : (await readIfThere(join(path, "cgroup.controllers"))).trim().split(/\s+/);
    hierarchies.push({ path, version, controllers });
  }
  if (hierarchies.length === 0) {
    throw new StrataError(
      "Unavailable",
      `no cgroups are mounted at ${root}; a Linux host mounts them at boot`,
    );
  }
  return hierarchies;
}

function requireController(hierarchies: readonly Hierarchy[], name: string): Hierarchy {
  const found = hierarchies.find(({ controllers }) => controllers.includes(name));
  if (found) return found;
  const help = name === "memory" ? "; boot with cgroup_enable=memory" : "";
  throw new StrataError("Unavailable", `the kernel offers no cgroup controller ${name}${help}`);
}

function partsOf(group: string): string[] {
  if (!groupPattern.test(group)) {
    throw new StrataError("Invalid", `"${group}" is no name for a cgroup`);
  }
  return group.split("/").filter((part) => part !== "");
}

function isPopulatedText(events: string): boolean {
  return /^populated 1$/m.test(events);
}

function inUse(name: string, bytes: number): StrataError {
  return new StrataError(
    "Conflict",
    `cgroup ${name} cannot be limited to ${bytes / 1024 ** 2} MiB of memory: more than that is in use; end some of its programs first`,
  );
}

function unavailable(message: string, cause: unknown): StrataError {
  return new StrataError("Unavailable", message, { cause });
}
