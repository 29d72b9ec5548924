import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type CpuFacts, cpuFindings, nameHypervisor, parseCpu, readCpu } from "./cpu.ts";
import { HostFiles } from "./host-files.ts";
import { kvmFindings } from "./kvm-findings.ts";

const intel = `processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz
flags		: fpu vme sse sse2 vmx ept lm
vmx flags	: vnmi preemption_timer
bugs		: spectre_v1
processor	: 1
model name	: Intel(R) Core(TM) i7-1185G7 @ 3.00GHz
flags		: fpu vme sse sse2 vmx ept lm
`;
const amd = "processor\t: 0\nmodel name\t: AMD Ryzen 7 5800X\nflags\t\t: fpu sse2 svm npt lm\n";
const virtual = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 hypervisor lm\n";
const virtualNested = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu hypervisor vmx ept lm\n";
const arm = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n";

describe("parseCpu", () => {
  it.each([
    [
      intel,
      { model: "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz", count: 2, extension: "vmx", nestedPaging: true },
    ],
    [amd, { model: "AMD Ryzen 7 5800X", count: 1, extension: "svm", nestedPaging: true }],
    [virtual, { model: "AMD EPYC", count: 1, extension: "none", nestedPaging: false }],
    [arm, { model: "ARM", count: 1, extension: "unknown", nestedPaging: false }],
    ["", { model: "unknown", count: 0, extension: "none", nestedPaging: false }],
  ])("reads %#", (text, facts) => expect(parseCpu(text)).toEqual(facts));

  it("does not take parts of other flags, or of other lines, for the extension", () => {
    const text = "processor : 0\nflags : vmxnet asvm\nvmx flags : vmx svm\n";
    expect(parseCpu(text).extension).toBe("none");
  });
});

describe("nameHypervisor", () => {
  const clues = { cpuinfo: virtual, vendor: "", product: "", hypervisorType: "", xenCapabilities: "" };

  it.each([
    [{ cpuinfo: intel, vendor: "LENOVO" }, ""],
    [{}, "unknown"],
    [{ vendor: "QEMU", product: "Standard PC (Q35 + ICH9, 2009)" }, "QEMU"],
    [{ vendor: "Amazon EC2", product: "t3.micro" }, "Amazon EC2"],
    [{ vendor: "Google", product: "Google Compute Engine" }, "Google Compute Engine"],
    [{ vendor: "Microsoft Corporation", product: "Virtual Machine" }, "Hyper-V"],
    [{ vendor: "VMware, Inc.", product: "VMware7,1" }, "VMware"],
    [{ vendor: "innotek GmbH", product: "VirtualBox" }, "VirtualBox"],
    [{ hypervisorType: "xen", xenCapabilities: "" }, "Xen"],
    [{ hypervisorType: "xen", xenCapabilities: "control_d" }, ""],
  ])("%j is %j", (change, name) => expect(nameHypervisor({ ...clues, ...change })).toBe(name));
});

describe("readCpu", () => {
  let root = "";
  afterEach(() => rm(root, { recursive: true, force: true }));

  it("reads what is there, and nothing fails on what is not", async () => {
    root = await mkdtemp(join(tmpdir(), "strata-cpu-"));
    expect(await readCpu(new HostFiles(root))).toMatchObject({ count: 0, container: "", iommuGroups: 0 });
    const files: Record<string, string> = {
      "proc/cpuinfo": intel,
      "sys/module/kvm_intel/parameters/nested": "Y\n",
      "sys/kernel/iommu_groups/0/type": "DMA",
      "sys/kernel/iommu_groups/1/type": "DMA",
      ".dockerenv": "",
    };
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
    }
    const cpu = await readCpu(new HostFiles(root));
    expect(cpu).toMatchObject({ nestedGuests: "on", iommuGroups: 2, hypervisor: "", container: "Docker" });
    // The marker came with a root file system; the first process namespace is the machine's own.
    await mkdir(join(root, "proc/self/ns"), { recursive: true });
    await symlink("pid:[4026531836]", join(root, "proc/self/ns/pid"));
    expect((await readCpu(new HostFiles(root))).container).toBe("");
  });
});

describe("findings", () => {
  const facts = (cpuinfo: string, change: Partial<CpuFacts> = {}): CpuFacts => ({
    ...parseCpu(cpuinfo),
    hypervisor: "",
    container: "",
    nestedGuests: "",
    iommuGroups: 0,
    ...change,
  });

  it("say where virtualization is switched on", () => {
    expect(cpuFindings(facts(intel))[0]).toMatchObject({ level: "ok", advice: "" });
    const metal = parseCpu(intel.replaceAll("vmx", "xxx"));
    expect(cpuFindings(facts("", metal))[0]?.advice).toContain("BIOS");
    expect(cpuFindings(facts(virtual, { hypervisor: "Hyper-V" }))[0]?.advice).toContain("in Hyper-V");
    expect(cpuFindings(facts(virtual, { hypervisor: "unknown" }))[0]?.advice).toContain("in its hypervisor");
    expect(cpuFindings(facts(virtualNested, { hypervisor: "QEMU" }))[0]).toMatchObject({ level: "ok" });
  });

  it("warn of containers", () => {
    expect(cpuFindings(facts(intel, { container: "lxc" }))[1]).toMatchObject({ level: "warning" });
  });

  it("believe KVM only when a guest booted", () => {
    const proof = { works: true, ms: 412.6, reason: "the guest powered off" };
    const kvm = (cpuinfo: string, device: boolean, works?: boolean) =>
      kvmFindings(facts(cpuinfo), device, works === undefined ? undefined : { ...proof, works })[0];
    expect(kvm(intel, true, true)).toMatchObject({ level: "ok", facts: { "test took": "413 ms" } });
    expect(kvm(intel, true, false)).toMatchObject({
      level: "warning",
      title: "KVM is there and does not work",
    });
    expect(kvm(virtual, true, false)?.advice).toContain("without the processor's support");
    expect(kvm(intel, true)).toMatchObject({ level: "info" });
    expect(kvm(intel, false)?.advice).toContain("modprobe kvm_intel");
    expect(kvm(amd, false)?.advice).toContain("modprobe kvm_amd");
    expect(kvm(virtual, false)?.advice).toContain("processor's advice");
  });
});
