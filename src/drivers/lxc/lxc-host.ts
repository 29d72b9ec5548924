/** What the lxc driver uses of its host: LXC's programs and where they may look for others. */
import { readFileSync } from "node:fs";
import { access, chmod, chown, constants, mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { StrataError } from "../../core/errors.ts";
import { ownFile } from "../../core/own-files.ts";
import { volumeMountsScript } from "../../host/disks/data-disks.ts";
import { run } from "../../host/run.ts";
import { lxcfsPath } from "./lxc-config.ts";

export interface LxcHost {
  lxcStart: string;
  lxcAttach: string;
  lxcConsole: string;
  nsenter: string;
  bash: string;
  ip: string;
  perl: string;
  /** PATH of LXC's monitor. */
  monitorPath: string;
  plugCards: string;
  /** Script that mounts volumes in guests. */
  volumeMounts: string;
  /** `unconfined` where the host has no AppArmor. */
  apparmorProfile: string;
  lxcfs: boolean;
  /** How many files a process may open (the hard limit). */
  maxOpenFiles: number;
  seccompProfile?: string;
}

const programDirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const seccompProfile = "/usr/share/lxc/config/common.seccomp";
/** Copied: a shell reads a script as it goes, and reboots of guests need it while Strata itself is being replaced. */
const plugCardsScript = readFileSync(ownFile("src/drivers/lxc/plug-cards.sh"), "utf8");
const volumeMountsText = readFileSync(volumeMountsScript, "utf8");

/**
 * Finds the programs, and makes what the driver needs below its directory. Idempotent.
 * @throws Unavailable with what is missing.
 */
export async function openLxcHost(lxcPath: string): Promise<LxcHost> {
  const [lxcStart, lxcAttach, lxcConsole, nsenter, bash, ip, perl] = await Promise.all([
    findProgram("lxc-start", "lxc"),
    findProgram("lxc-attach", "lxc"),
    findProgram("lxc-console", "lxc"),
    findProgram("nsenter", "util-linux"),
    findProgram("bash", "bash"),
    findProgram("ip", "iproute2"),
    findProgram("perl", "perl-base"),
  ]);
  // LXC's monitor finds no programs here on its own: were newuidmap among them, LXC would insist on an entry for root
  // in /etc/subuid; without it, it writes the id maps itself, as root may.
  const tools = join(lxcPath, ".tools");
  await mkdir(tools, { recursive: true, mode: 0o700 });
  const plugCards = await copyScript(join(tools, "plug-cards"), plugCardsScript);
  const volumeMounts = await copyScript(join(tools, "volume-mounts"), volumeMountsText);
  const apparmorProfile = (await hasAppArmor()) ? await loadProfile() : "unconfined";
  const seccomp = (await canAccess(seccompProfile, constants.R_OK)) ? { seccompProfile } : {};
  const lxcfs = await canAccess(join(lxcfsPath, "proc/meminfo"), constants.R_OK);
  const maxOpenFiles = await openFilesLimit();
  return {
    lxcStart,
    lxcAttach,
    lxcConsole,
    nsenter,
    bash,
    ip,
    perl,
    monitorPath: tools,
    plugCards,
    volumeMounts,
    apparmorProfile,
    lxcfs,
    maxOpenFiles,
    ...seccomp,
  };
}

async function copyScript(path: string, text: string): Promise<string> {
  await writeFile(`${path}.new`, text, { mode: 0o600 });
  await rename(`${path}.new`, path);
  return path;
}

/** Loading it again changes nothing for containers that run with it. Returns its name. */
async function loadProfile(): Promise<string> {
  const parser = await findProgram("apparmor_parser", "apparmor");
  const file = fileURLToPath(ownFile("src/drivers/lxc/apparmor-profile"));
  await run(parser, ["--replace", "--skip-cache", file]);
  return "lxc-strata-container";
}

async function findProgram(name: string, packageName: string): Promise<string> {
  for (const dir of programDirs) {
    const path = join(dir, name);
    if (await canAccess(path, constants.X_OK)) return path;
  }
  throw new StrataError(
    "Unavailable",
    `the program ${name} is not installed; the package ${packageName} has it`,
  );
}

function canAccess(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}

async function openFilesLimit(): Promise<number> {
  const limits = await readFile("/proc/self/limits", "utf8");
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1];
  return hard === undefined ? Number.MAX_SAFE_INTEGER : Number(hard);
}

async function hasAppArmor(): Promise<boolean> {
  const text = await readFile("/sys/module/apparmor/parameters/enabled", "utf8").catch(() => "");
  return text.trim() === "Y";
}

/**
 * A container's root is nobody special on the host: it must be able to pass through every directory above what it
 * mounts. Directories from `ours` down are opened for its group, and only for passing through; of those above it is
 * told which one is in the way.
 * @throws Unavailable naming the directory.
 */
export async function ensureReachable(path: string, ours: string, gid: number): Promise<void> {
  for (let dir = path; ; dir = dirname(dir)) {
    const { mode, gid: owner } = await stat(dir);
    const passable = (mode & 0o001) !== 0 || (owner === gid && (mode & 0o010) !== 0);
    if (!passable && !isWithin(dir, ours)) {
      throw new StrataError(
        "Unavailable",
        `a container cannot reach its files because ${dir} is closed to other users; allow passing through with: chmod o+x ${dir}`,
      );
    }
    if (!passable) {
      await chown(dir, 0, gid);
      await chmod(dir, (mode & 0o7777) | 0o010);
    }
    if (dir === "/") return;
  }
}

function isWithin(path: string, top: string): boolean {
  return path === top || path.startsWith(`${top}/`);
}
