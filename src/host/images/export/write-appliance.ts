/** An appliance: a VMDK with a descriptor and checksums in one tar (DMTF DSP0243, version 1). */
import { createHash, hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { plainFileHeader, tarEnd, tarPadding } from "../../../core/tar-writer.ts";
import type { WriteDiskRequest } from "./write-disk.ts";

const names = { descriptor: "image.ovf", manifest: "image.mf", disk: "image-disk1.vmdk" } as const;
/** What a machine made of it begins with; whoever imports it changes that. */
const machine = { cpus: 2, memoryMib: 2048 } as const;

export async function writeAppliance(
  request: Pick<WriteDiskRequest, "disk" | "digest" | "directory"> & { vmdk: string },
): Promise<string> {
  const { vmdk, directory, digest, disk } = request;
  const path = join(directory, "image.ova");
  const { size } = await stat(vmdk);
  const descriptor = ovfDescriptor({
    ...{ name: digest.slice("sha256:".length, "sha256:".length + 12), fileBytes: size },
    capacityBytes: await capacityOf(vmdk),
    uefi: disk.firmware === "uefi",
  });
  const sum = createHash("sha256");
  for await (const chunk of createReadStream(vmdk)) sum.update(chunk);
  const manifest = [
    `SHA256(${names.descriptor})= ${hash("sha256", descriptor)}`,
    `SHA256(${names.disk})= ${sum.digest("hex")}`,
    "",
  ].join("\n");
  await using file = await open(path, "wx", 0o600);
  // The order that the standard asks for.
  for (const [name, text] of [
    [names.descriptor, descriptor],
    [names.manifest, manifest],
  ] as const) {
    const bytes = Buffer.from(text);
    await file.writeFile(
      Buffer.concat([plainFileHeader(name, bytes.length), bytes, tarPadding(bytes.length)]),
    );
  }
  await file.writeFile(plainFileHeader(names.disk, size));
  await file.writeFile(createReadStream(vmdk));
  await file.writeFile(Buffer.concat([tarPadding(size), tarEnd]));
  await rm(vmdk);
  return path;
}

/** From the file's header: sectors, at byte 12. */
async function capacityOf(vmdk: string): Promise<number> {
  await using file = await open(vmdk, "r");
  const { buffer } = await file.read(Buffer.alloc(20), 0, 20, 0);
  return Number(buffer.readBigUInt64LE(12)) * 512;
}

interface OvfFacts {
  /** Letters and digits. */
  name: string;
  fileBytes: number;
  capacityBytes: number;
  uefi: boolean;
}

/** One machine with one disk at a SATA controller and one card, in the form that VirtualBox and VMware read. */
export function ovfDescriptor({ name, fileBytes, capacityBytes, uefi }: OvfFacts): string {
  const item = (fields: Record<string, string | number>) =>
    [
      "      <Item>",
      ...Object.entries(fields).map(([key, value]) => `        <rasd:${key}>${value}</rasd:${key}>`),
      "      </Item>",
    ].join("\n");
  const items = [
    item({ ElementName: "processors", InstanceID: 1, ResourceType: 3, VirtualQuantity: machine.cpus }),
    item({
      ...{ AllocationUnits: "byte * 2^20", ElementName: "memory", InstanceID: 2, ResourceType: 4 },
      VirtualQuantity: machine.memoryMib,
    }),
    item({ Address: 0, ElementName: "sata0", InstanceID: 3, ResourceSubType: "AHCI", ResourceType: 20 }),
    item({
      ...{ AddressOnParent: 0, ElementName: "disk1", HostResource: "ovf:/disk/vmdisk1", InstanceID: 4 },
      ...{ Parent: 3, ResourceType: 17 },
    }),
    item({
      ...{ AddressOnParent: 0, AutomaticAllocation: "true", Connection: "NAT", ElementName: "card1" },
      ...{ InstanceID: 5, ResourceSubType: "E1000", ResourceType: 10 },
    }),
  ];
  const firmware = uefi
    ? '      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>\n'
    : "";
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf" ovf:version="1.0">
  <References>
    <File ovf:href="${names.disk}" ovf:id="file1" ovf:size="${fileBytes}"/>
  </References>
  <DiskSection>
    <Info>Disks</Info>
    <Disk ovf:capacity="${capacityBytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1"
      ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="NAT"/>
  </NetworkSection>
  <VirtualSystem ovf:id="image-${name}">
    <Info>A virtual machine</Info>
    <OperatingSystemSection ovf:id="101">
      <Info>Linux, 64 bits</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System>
        <vssd:ElementName>Hardware</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>image-${name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>
      </System>
${items.join("\n")}
${firmware}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`;
}
