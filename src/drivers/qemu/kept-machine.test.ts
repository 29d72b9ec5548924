import { describe, expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";
import type { GuestRecord } from "./guest-files.ts";
import { comers, differenceOf, type KeptMachine, partsOf, unsettled } from "./kept-machine.ts";
import type { QemuConfig } from "./qemu-config.ts";

const nic = (port: string): GuestNic => ({
  ...{ name: port, macAddress: `52:54:00:00:00:${port}`, ipAddress: "10.0.0.2", prefixLength: 24 },
  ...{ gateway: "10.0.0.1", mtu: 1450, netns: "/run/netns/n", bridge: "br0", port },
});
const volume = (id: string) => ({ type: "disk" as const, id: id as Uid, path: `/volumes/${id}/data.raw` });

const spec: GuestSpec<QemuConfig> = {
  uid: "0123456789abcdef" as Uid,
  ...{ title: "default/web", hostname: "web", type: "vm", cpus: 1, memoryMib: 512, maxProcesses: 0 },
  root: { type: "disk", path: "/volumes/root/disk.qcow2", format: "qcow2", firmware: "bios" },
  nics: [nic("01"), nic("02")],
  volumes: [volume("a"), volume("b")],
  seed: { metaData: "", userData: "", networkConfig: "" },
  config: {},
};
const record = (change: Partial<GuestSpec<QemuConfig>> = {}): GuestRecord => ({
  spec: { ...spec, ...change },
  disk: [{ path: "/volumes/root/disk.qcow2", format: "qcow2" }],
  processUid: 1,
  places: { "01": 0, "02": 1 },
});
const kept: KeptMachine = {
  ...{ version: 1, qemu: "7.2.22", processor: "", cpus: [], targets: {}, ports: [], frozen: false },
  launched: { cpus: 1, memoryMib: 512, accelerator: "tcg" },
  parts: partsOf(record()),
};
const difference = (changed: GuestRecord, change: object = {}) =>
  differenceOf(kept, { parts: partsOf(changed), accelerator: "tcg", processor: "", ...change });

describe("differenceOf", () => {
  test("is none for the same machine, whatever its seed, and in whatever order its cards and volumes are listed", () => {
    expect(difference(record())).toBeUndefined();
    expect(difference(record({ seed: { ...spec.seed, userData: "#!/bin/sh" }, title: "x" }))).toBeUndefined();
    const turned = record({ nics: [...spec.nics], volumes: [...(spec.volumes ?? [])].reverse() });
    expect(difference(turned)).toBeUndefined();
  });

  test.each<[string, GuestRecord, RegExp]>([
    ["CPUs", record({ cpus: 2 }), /CPUs/],
    ["memory", record({ memoryMib: 1024 }), /memory/],
    ["a root of another image", record({ root: { ...spec.root, generation: 1 } as never }), /root/],
    ["a card less", record({ nics: [nic("01")] }), /cards/],
    ["another address", record({ nics: [nic("01"), { ...nic("02"), ipAddress: "10.0.0.9" }] }), /cards/],
    ["a card elsewhere", { ...record(), places: { "01": 0, "02": 2 } }, /cards/],
    ["a volume less", record({ volumes: [volume("a")] }), /volumes/],
    ["a volume more", record({ volumes: [volume("a"), volume("b"), volume("c")] }), /volumes/],
    ["another CPU model", record({ config: { cpuModel: "Skylake" } as never }), /settings/],
  ])("says so: %s", (_name, changed, words) => {
    expect(difference(changed)).toMatch(words);
  });

  test("says so of what the machine runs on", () => {
    expect(difference(record(), { accelerator: "kvm" })).toMatch(/tcg.*kvm/);
    expect(difference(record(), { processor: "other" })).toMatch(/processor/);
  });
});

describe("what is in a machine", () => {
  const devices = ["nic0", "nic1", "disk-a", "disk-b", "plug1", "disks", "balloon", "agent"];
  test("is settled when it is what is recorded", () => {
    expect(unsettled(record(), new Set(devices))).toBeUndefined();
    expect(unsettled(record(), new Set([...devices, "nic2"]))).toMatch(/coming or leaving/);
    expect(unsettled(record(), new Set(devices.slice(1)))).toMatch(/coming or leaving/);
    expect(unsettled(record({ volumes: [volume("a")] }), new Set(devices))).toMatch(/coming or leaving/);
  });

  test("has come since its start, or was there", () => {
    const more = new Set([...devices, "cpu1", "exec0-in", "exec0-out", "cpus"]);
    expect(comers(more)).toEqual({ cpus: ["cpu1"], ports: ["exec0-in", "exec0-out"] });
    expect(comers(new Set(devices))).toEqual({ cpus: [], ports: [] });
  });
});
