import { expect, it } from "vitest";
import { readOvf } from "../appliance/ovf-descriptor.ts";
import { parseXml } from "../appliance/strict-xml.ts";
import { loaderConfiguration } from "./grub-loader.ts";
import { ovfDescriptor } from "./write-appliance.ts";

const facts = { name: "0123456789ab", fileBytes: 1000, capacityBytes: 3 * 1024 ** 3, uefi: false };

it("an appliance's descriptor is read back by the reader of strangers' ones", () => {
  expect(readOvf(ovfDescriptor(facts))).toEqual({ file: "image-disk1.vmdk", capacityBytes: 3 * 1024 ** 3 });
  expect(parseXml(ovfDescriptor({ ...facts, uefi: true })).name).toBe("Envelope");
  expect(ovfDescriptor({ ...facts, uefi: true })).toMatch(/key="firmware" vmw:value="efi"/);
});

it("the loader starts the kernel of the root that it finds by its UUID", () => {
  const rootUuid = "01234567-89ab-8def-8123-456789abcdef";
  expect(loaderConfiguration({ kernel: "/vmlinuz", initrd: "/initrd.img", rootUuid }).split("\n")).toEqual([
    "serial --unit=0 --speed=115200",
    "terminal_input console serial",
    "terminal_output console serial",
    `search --no-floppy --fs-uuid --set=root ${rootUuid}`,
    `linux /vmlinuz root=UUID=${rootUuid} rw console=tty0 console=ttyS0,115200`,
    "initrd /initrd.img",
    "boot",
    "",
  ]);
  expect(loaderConfiguration({ kernel: "/boot/vmlinuz-6.1.0", rootUuid })).not.toMatch(/initrd/);
});

it.each(["/boot/vmlinuz 6", "/boot/x;halt", "/boot/$x", "/boot/x\nhalt", "boot/vmlinuz"])(
  "a kernel named %j is not told to GRUB",
  (kernel) => {
    expect(() => loaderConfiguration({ kernel, rootUuid: "x" })).toThrow(/GRUB cannot be told/);
  },
);
