/** What a root tree can do: which types of guest can start from it, with which kernel, and what it calls itself. */

import { StrataError } from "../../core/errors.ts";
import { addedPath, type ImageApplication, readApplication } from "./dockerfile/application.ts";
import { findFile, namesIn, readStart } from "./tree-paths.ts";

export interface TreeInspection {
  os: string;
  types: ("vm" | "container")[];
  limitation: string;
  /** What was added to the tree for it to start everywhere, and what its application is; "" when nothing. */
  remark: string;
  /** Directories with the data of its application, as the Dockerfile's VOLUME says: not what the image brought. */
  dataPaths: readonly string[];
  /** Host paths of the newest kernel in the tree that has its modules, and of its initrd. */
  boot?: { kernel: string; initrd?: string };
}

const maxAddedBytes = 64 * 1024;
const initPaths = [
  "/sbin/init",
  "/usr/sbin/init",
  "/usr/lib/systemd/systemd",
  "/lib/systemd/systemd",
  "/init",
];

/** @throws Invalid when neither type of guest could start from it. */
export async function inspectTree(root: string): Promise<TreeInspection> {
  const os = prettyName((await readStart(root, "/etc/os-release", 16 * 1024)) ?? "");
  if (!(await hasInit(root))) {
    throw new StrataError(
      "Invalid",
      "the root tree has no /sbin/init, so no guest can start from it; install an init system, such as systemd-sysv",
    );
  }
  const boot = await findKernel(root);
  const application = await readApplication(root);
  const remark = await describeBuild(root, application);
  const dataPaths = application?.volumes ?? [];
  if (boot) return { os, types: ["vm", "container"], limitation: "", remark, dataPaths, boot };
  return {
    os,
    remark,
    dataPaths,
    types: ["container"],
    limitation:
      "the tree has no kernel in /boot (with its modules in /lib/modules), so it cannot start as a VM",
  };
}

async function describeBuild(root: string, application: ImageApplication | undefined): Promise<string> {
  const added = (await readStart(root, addedPath, maxAddedBytes))?.trim().split("\n").join(", ");
  const ports = application?.ports.join(", ");
  const parts = [
    ...(application ? [`runs ${shown(application.command)}${ports ? `, exposes ${ports}` : ""}`] : []),
    ...(added ? [`added by Strata: ${added}`] : []),
  ];
  return parts.join("; ");
}

function shown(command: readonly string[]): string {
  return command
    .join(" ")
    .replace(/\p{Cc}/gu, " ")
    .slice(0, 200);
}

async function hasInit(root: string): Promise<boolean> {
  for (const path of initPaths) {
    if (await findFile(root, path)) return true;
  }
  return false;
}

/** PRETTY_NAME of an os-release text, or "". Control characters are dropped. */
export function prettyName(osRelease: string): string {
  const line = /^PRETTY_NAME=(.*)$/m.exec(osRelease)?.[1]?.trim() ?? "";
  const unquoted = /^(["'])(.*)\1$/.exec(line)?.[2] ?? line;
  return unquoted.replace(/\p{Cc}/gu, "").slice(0, 200);
}

async function findKernel(root: string): Promise<TreeInspection["boot"]> {
  const names = await namesIn(root, "/boot");
  const modules = new Set([
    ...(await namesIn(root, "/lib/modules")),
    ...(await namesIn(root, "/usr/lib/modules")),
  ]);
  const versions = names
    .filter((name) => name.startsWith("vmlinuz-") && !name.includes("rescue"))
    .map((name) => name.slice("vmlinuz-".length))
    .sort(compareVersions)
    .reverse();
  // Alpine names its kernel by flavour (vmlinuz-virt) and the modules by version.
  const usable = versions.filter(
    (version) => modules.has(version) || (!/^\d/.test(version) && modules.size > 0),
  );
  for (const version of usable) {
    const kernel = await findFile(root, `/boot/vmlinuz-${version}`);
    if (kernel === undefined) continue;
    const initrds = [
      `initrd.img-${version}`,
      `initramfs-${version}.img`,
      `initramfs-${version}`,
      `initrd-${version}`,
    ];
    for (const name of initrds) {
      const initrd = await findFile(root, `/boot/${name}`);
      if (initrd !== undefined) return { kernel, initrd };
    }
    return { kernel };
  }
  return undefined;
}

/** Numbers by value, the rest by text: 6.1.0-9 comes before 6.1.0-10. */
export function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}
