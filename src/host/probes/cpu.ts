/** The processor: what it offers to virtual machines, and whether this machine is one itself. */
import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface CpuFacts {
  model: string;
  count: number;
  /** Intel VT-x, AMD-V, the virtualization of ARMv8 (not visible in flags: `unknown`), or none. */
  extension: "vmx" | "svm" | "none" | "unknown";
  /** Second-level address translation, without which virtual machines are slow. */
  nestedPaging: boolean;
  /** What this machine runs in; "" on bare metal. */
  hypervisor: string;
  /** The container this runs in; "" when in none. */
  container: string;
  /** Whether guests may be hypervisors; "" when KVM does not say. */
  nestedGuests: "on" | "off" | "";
  iommuGroups: number;
}

export interface VirtualizationClues {
  cpuinfo: string;
  /** /sys/class/dmi/id/sys_vendor and product_name. */
  vendor: string;
  product: string;
  /** /sys/hypervisor/type. */
  hypervisorType: string;
  /** /proc/xen/capabilities. */
  xenCapabilities: string;
}

/** The first process namespace always has this number (PROC_PID_INIT_INO in linux/proc_ns.h). */
const machinesPidNamespace = "pid:[4026531836]";

const vendors: readonly (readonly [RegExp, string])[] = [
  [/amazon ec2/i, "Amazon EC2"],
  [/google/i, "Google Compute Engine"],
  [/microsoft corporation.*virtual machine/i, "Hyper-V"],
  [/vmware/i, "VMware"],
  [/virtualbox|innotek/i, "VirtualBox"],
  [/parallels/i, "Parallels"],
  [/openstack/i, "OpenStack"],
  [/hetzner/i, "Hetzner Cloud"],
  [/digitalocean/i, "DigitalOcean"],
  [/xen/i, "Xen"],
  [/kubevirt/i, "KubeVirt"],
  [/qemu|kvm|bochs/i, "QEMU"],
];

/** The hypervisor below this machine by name, `unknown` when there is one without a name, "" on bare metal. */
export function nameHypervisor(clues: VirtualizationClues): string {
  if (clues.hypervisorType === "xen") {
    return clues.xenCapabilities.includes("control_d") ? "" : "Xen"; // domain 0 drives the hardware itself
  }
  if (!cpuFlags(clues.cpuinfo).has("hypervisor")) return "";
  const firmware = `${clues.vendor} ${clues.product}`;
  return vendors.find(([pattern]) => pattern.test(firmware))?.[1] ?? "unknown";
}

/** From /proc/cpuinfo. */
export function parseCpu(cpuinfo: string): Pick<CpuFacts, "model" | "count" | "extension" | "nestedPaging"> {
  const flags = cpuFlags(cpuinfo);
  const arm = /^CPU implementer\s*:/m.test(cpuinfo);
  return {
    model: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? (arm ? "ARM" : "unknown"),
    count: [...cpuinfo.matchAll(/^processor\s*:/gm)].length,
    extension: flags.has("vmx") ? "vmx" : flags.has("svm") ? "svm" : arm ? "unknown" : "none",
    nestedPaging: flags.has("ept") || flags.has("npt"),
  };
}

export async function readCpu(files: HostFiles): Promise<CpuFacts> {
  const cpuinfo = await files.text("proc/cpuinfo");
  const nested =
    (await files.text("sys/module/kvm_intel/parameters/nested")) ||
    (await files.text("sys/module/kvm_amd/parameters/nested"));
  return {
    ...parseCpu(cpuinfo),
    hypervisor: nameHypervisor({
      cpuinfo,
      vendor: await files.text("sys/class/dmi/id/sys_vendor"),
      product: await files.text("sys/class/dmi/id/product_name"),
      hypervisorType: await files.text("sys/hypervisor/type"),
      xenCapabilities: await files.text("proc/xen/capabilities"),
    }),
    container: await readContainer(files),
    nestedGuests: nested === "" ? "" : /^[Y1]/.test(nested) ? "on" : "off",
    iommuGroups: (await files.entries("sys/kernel/iommu_groups")).length,
  };
}

export function cpuFindings(cpu: CpuFacts): Finding[] {
  const facts = {
    model: cpu.model,
    cpus: String(cpu.count),
    extension: cpu.extension,
    "nested paging": cpu.nestedPaging ? "yes" : "no",
    "runs in": { "": "bare metal", unknown: "an unknown hypervisor" }[cpu.hypervisor] ?? cpu.hypervisor,
    ...(cpu.nestedGuests === "" ? {} : { "nested guests": cpu.nestedGuests }),
    "IOMMU groups": String(cpu.iommuGroups),
  };
  return [extensionFinding(cpu, facts), ...containerFindings(cpu)];
}

function extensionFinding(cpu: CpuFacts, facts: Record<string, string>): Finding {
  const below = cpu.hypervisor === "unknown" ? "" : `: ${cpu.hypervisor}`;
  const where = cpu.hypervisor === "" ? "" : ` (this machine is itself virtual${below})`;
  if (cpu.extension !== "none") {
    const name = { vmx: "Intel VT-x", svm: "AMD-V", unknown: "ARM" }[cpu.extension];
    return {
      area: "cpu",
      title: cpu.extension === "unknown" ? `ARM processor${where}` : `the processor offers ${name}${where}`,
      level: "ok",
      facts,
      meaning: "Virtual machines can use the processor directly, if KVM works: see there.",
      advice: "",
    };
  }
  return {
    area: "cpu",
    title: `the processor offers no hardware virtualization${where}`,
    level: "warning",
    facts,
    meaning: "Virtual machines are emulated in software, many times slower. Containers are not affected.",
    advice:
      cpu.hypervisor === ""
        ? "Switch on Intel VT-x or AMD-V (also called SVM) in the firmware's settings (BIOS, UEFI)."
        : `Switch on nested virtualization for this machine in ${cpu.hypervisor === "unknown" ? "its hypervisor" : cpu.hypervisor}, choose a machine type that has it, or use a machine of metal.`,
  };
}

function containerFindings(cpu: CpuFacts): Finding[] {
  if (cpu.container === "") return [];
  return [
    {
      area: "cpu",
      title: `this is not a machine but a container (${cpu.container})`,
      level: "warning",
      facts: { container: cpu.container },
      meaning: "Networks, file systems and limits need privileges that containers mostly do not have.",
      advice: "Run Strata on the machine itself, or in a virtual machine.",
    },
  ];
}

async function readContainer(files: HostFiles): Promise<string> {
  if ((await files.link("proc/self/ns/pid")) === machinesPidNamespace) return "";
  if (await files.has(".dockerenv")) return "Docker";
  if (await files.has("run/.containerenv")) return "Podman";
  const environment = (await files.text("proc/1/environ")).split("\0");
  const named = environment.find((line) => line.startsWith("container="))?.slice("container=".length);
  return named ?? (await files.text("run/systemd/container"));
}

function cpuFlags(cpuinfo: string): Set<string> {
  return new Set((/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? "").split(" "));
}
