/**
 * What an OVF descriptor says about its one machine's one disk. Format: DMTF DSP0243, versions 1 and 2, as VirtualBox
 * and VMware write it. Only file names that are plain names within the archive are accepted.
 */
import { StrataError } from "../../../core/errors.ts";
import { parseXml, type XmlElement } from "./strict-xml.ts";

export interface OvfDisk {
  /** Name of the archive's member that holds the disk. */
  file: string;
  /** Size of the disk as the descriptor has it, where it does. */
  capacityBytes?: number;
}

export const maxOvfBytes = 1024 * 1024;
const resourceTypes = { hardDisk: "17" } as const;

/**
 * @throws Invalid for a descriptor that is damaged, names files elsewhere or has no disk; Unsupported for more than one
 * machine or disk.
 */
export function readOvf(text: string): OvfDisk {
  const envelope = parseXml(text);
  if (envelope.name !== "Envelope") throw invalid("is no OVF descriptor: its root element is no Envelope");
  const systems = descendants(envelope, "VirtualSystem");
  if (systems.length > 1 || descendants(envelope, "VirtualSystemCollection").length > 0) {
    throw unsupported("has several machines; export one alone");
  }
  const [system] = systems;
  if (!system) throw invalid("has no machine (VirtualSystem)");
  const disk = diskElement(envelope, system);
  if (disk.attributes.get("parentRef"))
    throw invalid("has a disk that is only the difference to another one");
  const reference = disk.attributes.get("fileRef");
  const file = children(envelope, "References")
    .flatMap((references) => children(references, "File"))
    .find(({ attributes }) => attributes.get("id") === reference);
  if (reference === undefined || !file) throw invalid("has a disk without a file");
  if (file.attributes.has("chunkSize")) throw unsupported("has its disk in several pieces");
  const capacityBytes = capacityOf(disk);
  return {
    file: plainName(file.attributes.get("href") ?? ""),
    ...(capacityBytes !== undefined && { capacityBytes }),
  };
}

/** The disk that the machine has. Disks of the descriptor that no machine uses do not count. */
function diskElement(envelope: XmlElement, system: XmlElement): XmlElement {
  const disks = children(envelope, "DiskSection").flatMap((section) => children(section, "Disk"));
  const used = descendants(system, "Item")
    .concat(descendants(system, "StorageItem"))
    .filter((item) => children(item, "ResourceType")[0]?.text === resourceTypes.hardDisk)
    .map((item) => /^(?:ovf:)?\/disk\/(.+)$/.exec(children(item, "HostResource")[0]?.text ?? "")?.[1])
    .filter((id) => id !== undefined);
  if (used.length > 1) {
    throw unsupported(
      `has a machine with ${used.length} disks; an image is one disk, so import them one by one`,
    );
  }
  const found = disks.find(({ attributes }) => attributes.get("diskId") === used[0]);
  if (!found) throw invalid("has a machine without a disk");
  return found;
}

const units: Record<string, number> = {
  "": 1,
  byte: 1,
  "byte*2^10": 2 ** 10,
  "byte*2^20": 2 ** 20,
  "byte*2^30": 2 ** 30,
};

function capacityOf(disk: XmlElement): number | undefined {
  const text = disk.attributes.get("capacity") ?? "";
  const unit = units[(disk.attributes.get("capacityAllocationUnits") ?? "").replaceAll(" ", "")];
  if (!/^\d{1,15}$/.test(text) || unit === undefined) return undefined;
  return Number(text) * unit;
}

function plainName(href: string): string {
  if (/^[^/\\\0]{1,200}$/.test(href) && href !== "." && href !== ".." && !/^[a-z][a-z0-9+.-]*:/i.test(href))
    return href;
  throw invalid(
    `names the file ${JSON.stringify(href.slice(0, 100))}; only files beside the descriptor are read`,
  );
}

function children(element: XmlElement, name: string): XmlElement[] {
  return element.children.filter((child) => child.name === name);
}

function descendants(element: XmlElement, name: string): XmlElement[] {
  return element.children.flatMap((child) => [
    ...(child.name === name ? [child] : []),
    ...descendants(child, name),
  ]);
}

function invalid(what: string): StrataError {
  return new StrataError("Invalid", `the appliance's descriptor ${what}`);
}

function unsupported(what: string): StrataError {
  return new StrataError("Unsupported", `the appliance ${what}`);
}
