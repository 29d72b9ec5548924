/**
 * An image as a disk file that boots by itself. One whose VMs start by firmware has such a disk; for one that boots
 * directly, a disk is made of its tree (see bootable-disk.ts). The store's files are ours, so the tools need no jail.
 */
import { rm } from "node:fs/promises";
import { join, relative } from "node:path";
import { assert } from "../../../core/errors.ts";
import type { ArtefactFormat } from "../../../kinds/image.ts";
import type { Progress } from "../../../kinds/kind.ts";
import { run } from "../../run.ts";
import type { VmDisk } from "../image-store.ts";
import { inspectTree } from "../tree-inspection.ts";
import { findFile } from "../tree-paths.ts";
import { makeBootableDisk } from "./bootable-disk.ts";
import { writeAppliance } from "./write-appliance.ts";

export interface WriteDiskRequest {
  digest: string;
  /** The base of the image's VMs. */
  disk: VmDisk;
  /** The image's tree. */
  tree: string;
  format: Exclude<ArtefactFormat, "tar" | "oci" | "docker" | "lxc">;
  /** Of the work; must exist. */
  directory: string;
  signal: AbortSignal;
  onProgress(progress: Progress): void;
}

const timeoutMs = 60 * 60_000;

const options: Record<Exclude<WriteDiskRequest["format"], "ova">, readonly string[]> = {
  raw: [],
  qcow2: ["-c"],
  vmdk: ["-o", "subformat=monolithicSparse"],
  vdi: [],
  vhdx: ["-o", "subformat=dynamic"],
};

/** Path of the file, in the directory. @throws Unavailable without space or without GRUB on this host. */
export async function writeDisk(request: WriteDiskRequest): Promise<string> {
  const { disk, format, directory, signal, onProgress } = request;
  let source: { path: string; format: "raw" | "qcow2" } = disk;
  if (disk.boot) {
    onProgress({ step: "making a disk that boots by itself" });
    source = { path: (await bootable(request)).path, format: "raw" };
  }
  if (source.format === format && format === "raw") return source.path;
  onProgress({ step: `writing ${format}` });
  const how = format === "ova" ? ["-o", "subformat=streamOptimized"] : options[format];
  const to = format === "ova" ? "vmdk" : format;
  const path = join(directory, `image.${to}`);
  const args = ["convert", "-f", source.format, "-O", to, ...how, source.path, path];
  await run("nice", ["qemu-img", ...args], { signal, timeoutMs });
  if (source.path !== disk.path) await rm(source.path);
  return format === "ova" ? writeAppliance({ ...request, vmdk: path }) : path;
}

async function bootable({ digest, disk, tree, directory, signal }: WriteDiskRequest) {
  assert(disk.boot !== undefined, "a disk of its own needs no other");
  const { boot } = await inspectTree(tree);
  assert(boot !== undefined, "an image that boots directly has a kernel");
  // The links that Debian keeps at the newest kernel, so that updates within the guest count.
  const nameOf = async (file: string, link: string) =>
    (await findFile(tree, link)) === file ? link : `/${relative(tree, file)}`;
  return makeBootableDisk({
    ...{ digest, directory, signal },
    root: { path: disk.path, sizeMib: disk.sizeMib, uuid: disk.boot.root.replace("UUID=", "") },
    kernel: await nameOf(boot.kernel, "/vmlinuz"),
    ...(boot.initrd !== undefined && { initrd: await nameOf(boot.initrd, "/initrd.img") }),
  });
}
