/** What root disks stand on: loop devices, file systems in files, overlays, space, and ids to shift guests to. */
import { mkdir, mkdtemp, rm, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { hasCode } from "../../core/errors.ts";
import { formatMib } from "../../core/units.ts";
import type { HostConfig } from "../host-config.ts";
import { run } from "../run.ts";
import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface IdRange {
  owner: string;
  first: number;
  count: number;
}

export interface StorageFacts {
  stateDir: string;
  /** Type of the state directory's file system, as in /proc/self/mountinfo. */
  fileSystem: string;
  totalMib: number;
  freeMib: number;
  /** A free loop device could be named. */
  loop: boolean;
  /** An overlay could be mounted. Undefined: not tried. */
  overlay: { works: boolean; reason: string } | undefined;
  /** Ranges of /etc/subuid and /etc/subgid that overlap ours. */
  claimedIds: IdRange[];
}

const neededMib = 4 * 1024;
const comfortableMib = 20 * 1024;
/** Guests' ids, and one for each QEMU above them. */
const idCount = 2 * 65_536;

/** `/etc/subuid` or `/etc/subgid`. */
export function parseSubIds(text: string): IdRange[] {
  return [...text.matchAll(/^([^:#\n]+):(\d+):(\d+)$/gm)].map(([, owner = "", first, count]) => ({
    owner,
    first: Number(first),
    count: Number(count),
  }));
}

export function overlappingIds(ranges: readonly IdRange[], first: number, count: number): IdRange[] {
  return ranges.filter((range) => range.first < first + count && first < range.first + range.count);
}

/** Type of the file system that holds `path`, from /proc/self/mountinfo. */
export function fileSystemOf(mountinfo: string, path: string): string {
  let best = { length: -1, type: "unknown" };
  for (const line of mountinfo.split("\n")) {
    const point = line.split(" ")[4]?.replaceAll("\\040", " ");
    const type = line.split(" - ")[1]?.split(" ")[0];
    if (point === undefined || type === undefined) continue;
    const inside = point === "/" || path === point || path.startsWith(`${point}/`);
    // A later mount on the same point hides an earlier one.
    if (inside && point.length >= best.length) best = { length: point.length, type };
  }
  return best.type;
}

export async function readStorage(
  files: HostFiles,
  config: Pick<HostConfig, "stateDir" | "idBase">,
  signal: AbortSignal,
): Promise<StorageFacts> {
  const ids = [
    ...parseSubIds(await files.text("etc/subuid")),
    ...parseSubIds(await files.text("etc/subgid")),
  ];
  const existing = await nearestExisting(config.stateDir);
  const { bsize, blocks, bavail } = await statfs(existing);
  return {
    stateDir: config.stateDir,
    fileSystem: fileSystemOf(await files.text("proc/self/mountinfo"), existing),
    totalMib: Math.floor((blocks * bsize) / 1024 ** 2),
    freeMib: Math.floor((bavail * bsize) / 1024 ** 2),
    loop: await hasLoopDevice(signal),
    overlay: process.getuid?.() === 0 ? await tryOverlay(signal) : undefined,
    claimedIds: overlappingIds(ids, config.idBase, idCount),
  };
}

export function storageFindings(storage: StorageFacts): Finding[] {
  return [spaceFinding(storage), ...mountFindings(storage), ...idFindings(storage)];
}

function spaceFinding(storage: StorageFacts): Finding {
  const facts = {
    directory: storage.stateDir,
    "file system": storage.fileSystem,
    total: formatMib(storage.totalMib),
    free: formatMib(storage.freeMib),
  };
  const level = storage.freeMib < neededMib ? "problem" : storage.freeMib < comfortableMib ? "warning" : "ok";
  return {
    area: "storage",
    title: `${facts.free} of ${facts.total} are free for images and disks`,
    level,
    facts,
    meaning:
      level === "problem"
        ? "Building an image takes about 4 GiB; disks grow as guests write."
        : "Disks take only what guests have written, and images are shared by all guests that use them.",
    advice:
      level === "ok" ? "" : `Make room below ${storage.stateDir}, or put it on a larger disk (--state-dir).`,
  };
}

function mountFindings(storage: StorageFacts): Finding[] {
  const { loop, overlay } = storage;
  const facts = {
    "loop devices": loop ? "yes" : "no",
    overlay: overlay === undefined ? "not tried" : overlay.works ? "works" : overlay.reason,
  };
  const missing = [...(loop ? [] : ["loop devices"]), ...(overlay?.works === false ? ["overlay"] : [])];
  if (missing.length > 0) {
    return [
      {
        area: "storage",
        title: `containers' disks do not work: no ${missing.join(", no ")}`,
        level: "problem",
        facts,
        meaning:
          "A container's disk is a file system in a file (by a loop device), laid over its image (by overlay).",
        advice: `Load the kernel's modules: modprobe -a ${[...(loop ? [] : ["loop"]), ...(overlay?.works === false ? ["overlay"] : [])].join(" ")}. In a container they must be allowed from outside.`,
      },
    ];
  }
  return [
    {
      area: "storage",
      title: overlay ? "loop devices and overlays work" : "loop devices work; overlays were not tried",
      level: overlay ? "ok" : "info",
      facts,
      meaning: "A container's disk has a real size limit, and shares its image with others.",
      advice: overlay ? "" : "Run this as root to try overlays.",
    },
  ];
}

function idFindings(storage: StorageFacts): Finding[] {
  const [first] = storage.claimedIds;
  if (!first) return [];
  return [
    {
      area: "storage",
      title: `ids of guests are also promised to ${first.owner}`,
      level: "warning",
      facts: Object.fromEntries(
        storage.claimedIds.map((range) => [range.owner, `${range.first}–${range.first + range.count - 1}`]),
      ),
      meaning: "Processes of other containers and of guests here would be the same user to the kernel.",
      advice:
        "Give Strata another range with --id-base, or that user another one in /etc/subuid and /etc/subgid.",
    },
  ];
}

async function hasLoopDevice(signal: AbortSignal): Promise<boolean> {
  try {
    const { status } = await run("losetup", ["--find"], { signal, expected: [0, 1], timeoutMs: 5_000 });
    return status === 0;
  } catch (cause) {
    if (hasCode(cause, "Unavailable", "Timeout")) return false;
    throw cause;
  }
}

/** In a mount namespace of its own, so that nothing can be left behind. */
async function tryOverlay(signal: AbortSignal): Promise<{ works: boolean; reason: string }> {
  const directory = await mkdtemp("/tmp/strata-doctor-");
  try {
    for (const name of ["lower", "upper", "work", "merged"]) await mkdir(join(directory, name));
    const script = `cd "$1" && mount -t tmpfs none upper && mkdir upper/up upper/work &&
      mount -t overlay overlay -o lowerdir=lower,upperdir=upper/up,workdir=upper/work merged`;
    const { status, stderr } = await run("unshare", ["--mount", "sh", "-c", script, "sh", directory], {
      signal,
      expected: [0, 1, 32],
      timeoutMs: 10_000,
    });
    return { works: status === 0, reason: stderr.trim().slice(0, 200) };
  } catch (cause) {
    if (!hasCode(cause, "Unavailable", "Timeout", "Internal")) throw cause;
    return { works: false, reason: cause.message };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function nearestExisting(path: string): Promise<string> {
  const there = await statfs(path).then(
    () => true,
    () => false,
  );
  return there || path === "/" ? path : await nearestExisting(dirname(path));
}
