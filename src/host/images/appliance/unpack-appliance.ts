/**
 * An OVA, which is a tar of a descriptor (.ovf), checksums (.mf) and disks, as one disk file. Members are written under
 * names of our own, so nothing in the archive chooses a path; the checksums, where there are any, must be right.
 * Format: DMTF DSP0243, 12 (distribution as a single file) and 6.1.1 (manifest).
 */
import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../../core/errors.ts";
import { formatBytes } from "../../../core/units.ts";
import { type DiskFormat, formatByMagic, sectorBytes } from "../disk-formats/disk-header.ts";
import { parseVmdkDescriptor } from "../disk-formats/vmdk-header.ts";
import { readTar, show, type TarEntry } from "../tar-reader.ts";
import { maxOvfBytes, readOvf } from "./ovf-descriptor.ts";

export interface ApplianceDisk {
  path: string;
  format: DiskFormat;
}

interface Member {
  path: string;
  sizeBytes: number;
  sums: Record<string, string>;
}

const maxMembers = 64;
const maxManifestBytes = 64 * 1024;
const maxDescriptorBytes = 64 * 1024;
const sumTypes = ["sha1", "sha256", "sha512"] as const;

/**
 * @throws Invalid for members that are no plain files, wrong checksums, a disk that is not in the archive; Unsupported
 * for more than one machine or disk.
 */
export async function unpackAppliance(
  archive: AsyncIterable<Uint8Array>,
  /** Of the work: files are made and left in it. */
  directory: string,
  limits: { maxBytes: number },
  signal: AbortSignal,
): Promise<ApplianceDisk> {
  const members = await writeMembers(archive, directory, limits.maxBytes, signal);
  const descriptor = only(members, ".ovf");
  if (!descriptor) throw invalid("has no descriptor (.ovf)");
  await checkManifest(members);
  const ovf = readOvf(await textOf(descriptor.member, maxOvfBytes, descriptor.name));
  const disk = members.get(ovf.file);
  if (!disk) throw invalid(`does not hold the disk "${show(ovf.file)}" that its descriptor names`);
  const found = await diskOf(disk, members);
  for (const { path } of members.values()) if (path !== found.path) await rm(path);
  return found;
}

async function writeMembers(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  let total = 0;
  for await (const entry of readTar(archive)) {
    signal.throwIfAborted();
    const name = entry.path.replace(/^\.\//, "");
    if (entry.type === "directory" && name === "") continue;
    if (entry.type !== "file" || name.includes("/") || name === "" || name === "..") {
      throw invalid(`holds "${show(entry.path)}"; only plain files without directories belong there`);
    }
    if (members.has(name)) throw invalid(`holds "${show(name)}" twice`);
    if (members.size >= maxMembers) throw invalid(`holds more than ${maxMembers} files`);
    total += entry.sizeBytes;
    if (total > maxBytes) throw invalid(`holds more than ${formatBytes(maxBytes)}`);
    members.set(name, await writeMember(entry, join(directory, `member-${members.size}`)));
  }
  return members;
}

async function writeMember(entry: TarEntry, path: string): Promise<Member> {
  const sums = sumTypes.map((type) => [type, createHash(type)] as const);
  await using file = await open(path, "wx", 0o600);
  for await (const chunk of entry.content) {
    for (const [, sum] of sums) sum.update(chunk);
    await file.writeFile(chunk);
  }
  return {
    path,
    sizeBytes: entry.sizeBytes,
    sums: Object.fromEntries(sums.map(([type, sum]) => [type, sum.digest("hex")])),
  };
}

async function checkManifest(members: ReadonlyMap<string, Member>): Promise<void> {
  const manifest = only(members, ".mf");
  if (!manifest) return;
  const text = await textOf(manifest.member, maxManifestBytes, manifest.name);
  for (const line of text.split(/\r?\n/).filter((each) => each.trim() !== "")) {
    const [, type = "", name = "", sum = ""] =
      /^(SHA1|SHA256|SHA512)\s*\((.{1,200})\)\s*=\s*([0-9a-f]+)\s*$/i.exec(line) ?? [];
    const member = members.get(name);
    if (!member)
      throw invalid(`has a checksum file (${show(manifest.name)}) that is damaged or names no file of it`);
    if (member.sums[type.toLowerCase()] !== sum.toLowerCase())
      throw invalid(`is damaged: "${show(name)}" does not have the checksum of the appliance's own list`);
  }
}

/** A descriptor stands for its one flat extent, when that is a member too. */
async function diskOf(disk: Member, members: ReadonlyMap<string, Member>): Promise<ApplianceDisk> {
  const start = await startOf(disk, sectorBytes);
  const magic = formatByMagic(start);
  switch (magic) {
    case "vmdk":
    case "vdi":
    case "vhdx":
    case "qcow2":
      return { path: disk.path, format: magic };
    case "a VMDK descriptor": {
      const { createType, extents } = parseVmdkDescriptor(await startOf(disk, maxDescriptorBytes));
      const [extent] = extents;
      const flat = extents.length === 1 && extent?.type === "FLAT" && extent.offset === 0;
      const file = flat ? members.get(extent.file) : undefined;
      if (createType !== "monolithicFlat" || !extent || !file) {
        throw invalid("has a VMDK that keeps its data in files that are not in the archive, or in several");
      }
      if (file.sizeBytes !== extent.sectors * sectorBytes) throw invalid("has a flat VMDK of the wrong size");
      return { path: file.path, format: "raw" };
    }
    case undefined:
      return { path: disk.path, format: "raw" };
    default:
      throw invalid(`has its disk in a format that is not read (${magic})`);
  }
}

async function startOf(member: Member, bytes: number): Promise<Buffer> {
  await using file = await open(member.path, "r");
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0);
  return buffer.subarray(0, bytesRead);
}

async function textOf(member: Member, maxBytes: number, name: string): Promise<string> {
  if (member.sizeBytes > maxBytes) {
    throw invalid(`holds "${show(name)}" of ${member.sizeBytes} bytes; ${maxBytes} is the limit`);
  }
  return (await startOf(member, maxBytes)).toString("utf8");
}

function only(
  members: ReadonlyMap<string, Member>,
  ending: string,
): { name: string; member: Member } | undefined {
  const found = [...members].filter(([name]) => name.toLowerCase().endsWith(ending));
  if (found.length > 1) throw invalid(`holds several ${ending} files`);
  const [first] = found;
  return first && { name: first[0], member: first[1] };
}

function invalid(what: string): StrataError {
  return new StrataError("Invalid", `the appliance ${what}`);
}
