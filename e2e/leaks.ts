/**
 * What a test may not leave behind. A snapshot lists everything on the host that Strata makes outside its own
 * directories; two snapshots are compared as sets, so whatever else runs on the machine does not matter as long as it
 * stays.
 */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { run } from "../src/host/run.ts";

export type Snapshot = ReadonlySet<string>;

/** Processes, mounts, network namespaces, links, routes, nft tables, loop devices and control groups, one line each. */
export async function takeSnapshot(): Promise<Snapshot> {
  const lists = await Promise.all([
    processes(),
    mounts(),
    lines("netns", "ip", ["netns", "list"], (line) => line.split(" ")[0] ?? ""),
    lines("link", "ip", ["-o", "link"], (line) => line.split(/:\s|@/)[1] ?? ""),
    lines("route", "ip", ["-4", "route"], (line) => line.trim()),
    lines("nft", "nft", ["list", "tables"], (line) => line),
    lines("loop", "losetup", ["-l", "-n", "-O", "BACK-FILE"], (line) => line.trim()),
    cgroups(),
  ]);
  return new Set(lists.flat());
}

/**
 * What is there now and was not before, and stays. Other tests may run at the same time, each in namespaces of its own: loop
 * devices of other files than the daemon's and control groups that hold processes, but none of the daemon's, are somebody else's.
 *
 * @param marks texts that tell the daemon's own processes and files from others.
 */
export async function findLeaks(before: Snapshot, marks: readonly string[]): Promise<string[]> {
  let leaks = await findFresh(before, marks);
  // What somebody else makes may be empty or nameless for a moment.
  for (let looks = 0; looks < 3 && leaks.length > 0; looks++) {
    await systemClock.sleep(300);
    const still = new Set(await findFresh(before, marks));
    leaks = leaks.filter((line) => still.has(line));
  }
  return leaks;
}

async function findFresh(before: Snapshot, marks: readonly string[]): Promise<string[]> {
  const isOurs = async (line: string) => {
    if (line.startsWith("process ") || line.startsWith("loop ")) return isMarked(line, marks);
    return !line.startsWith("cgroup ") || !(await isForeign(line.slice("cgroup ".length), marks));
  };
  const fresh = [...(await takeSnapshot())].filter((line) => !before.has(line)).sort();
  const ours = await Promise.all(fresh.map(isOurs));
  return fresh.filter((_line, index) => ours[index]);
}

function isMarked(text: string, marks: readonly string[]): boolean {
  return marks.some((mark) => text.includes(mark));
}

/** Of the group and those below it. */
async function isForeign(group: string, marks: readonly string[]): Promise<boolean> {
  const below = await readdir(group, { recursive: true, withFileTypes: true }).catch(() => []);
  const groups = [
    group,
    ...below.flatMap((one) => (one.isDirectory() ? [join(one.parentPath, one.name)] : [])),
  ];
  const lists = await Promise.all(
    groups.map((one) => readFile(`${one}/cgroup.procs`, "utf8").catch(() => "")),
  );
  const pids = lists
    .join("\n")
    .split("\n")
    .filter((pid) => pid !== "");
  const commands = await Promise.all(
    pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
  );
  return commands.length > 0 && ![group, ...commands].some((text) => isMarked(text, marks));
}

async function lines(
  what: string,
  command: string,
  args: string[],
  pick: (line: string) => string,
): Promise<string[]> {
  const { stdout } = await run(command, args);
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => `${what} ${pick(line)}`);
}

/** User processes only, and none below this test process: those are the test's own. */
async function processes(): Promise<string[]> {
  const found: { pid: number; parent: number; command: string }[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      await readlink(`/proc/${entry}/exe`); // kernel threads have none
      const stat = await readFile(`/proc/${entry}/stat`, "utf8");
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z") continue;
      const texts = await Promise.all(
        ["cmdline", "cgroup", "environ"].map((file) => readFile(`/proc/${entry}/${file}`, "utf8")),
      );
      const command = texts.join(" ").replaceAll(/[\0\n]/g, " ");
      found.push({ pid: Number(entry), parent: Number(parent), command });
    } catch {
      // ended meanwhile
    }
  }
  const own = new Set([process.pid]);
  for (let grew = true; grew; ) {
    grew = false;
    for (const { pid, parent } of found) {
      if (own.has(parent) && !own.has(pid)) {
        own.add(pid);
        grew = true;
      }
    }
  }
  return found.filter(({ pid }) => !own.has(pid)).map(({ pid, command }) => `process ${pid} ${command}`);
}

async function mounts(): Promise<string[]> {
  const text = await readFile("/proc/self/mountinfo", "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => `mount ${line.split(" ")[4]}`);
}

/** Groups at the top of every hierarchy and one below: guests' groups are NAMESPACE/UID. */
async function cgroups(): Promise<string[]> {
  const root = "/sys/fs/cgroup";
  const found: string[] = [];
  const visit = async (path: string, depth: number): Promise<void> => {
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory()) continue;
      found.push(`cgroup ${path}/${entry.name}`);
      if (depth > 1) await visit(`${path}/${entry.name}`, depth - 1);
    }
  };
  await visit(root, 3);
  return found;
}
