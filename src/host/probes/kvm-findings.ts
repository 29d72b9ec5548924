import type { CpuFacts } from "./cpu.ts";
import type { Finding } from "./finding.ts";
import type { KvmProof } from "./kvm.ts";

/** `device`: /dev/kvm exists. `proof`: what a timed boot said; undefined when none was tried. */
export function kvmFindings(cpu: CpuFacts, device: boolean, proof: KvmProof | undefined): Finding[] {
  const facts = {
    "/dev/kvm": device ? "present" : "absent",
    ...(proof && { "test guest": proof.reason, "test took": `${Math.round(proof.ms)} ms` }),
  };
  if (proof?.works) {
    return [
      {
        area: "kvm",
        title: "KVM works: a test guest booted",
        level: "ok",
        facts,
        meaning: "Virtual machines run at nearly the speed of the machine.",
        advice: "",
      },
    ];
  }
  const emulated = "Virtual machines are emulated in software (TCG): correct, and many times slower.";
  if (!proof && device) {
    return [
      {
        area: "kvm",
        title: "KVM was not tried",
        level: "info",
        facts,
        meaning: `Whether it works is proven by booting a test guest. ${emulated}`,
        advice: "Run this as root with the packages installed.",
      },
    ];
  }
  return [
    {
      area: "kvm",
      title: device ? "KVM is there and does not work" : "there is no KVM",
      level: "warning",
      facts,
      meaning: emulated,
      advice: kvmAdvice(cpu, device),
    },
  ];
}

function kvmAdvice(cpu: CpuFacts, device: boolean): string {
  if (device) {
    return cpu.extension === "none"
      ? "The kernel offers KVM without the processor's support, which no usual guest can run in; see the processor's advice."
      : "Look at the kernel's messages (dmesg | grep -i kvm). Inside another virtual machine, its nested virtualization may be incomplete.";
  }
  if (cpu.extension === "vmx") return "Load the kernel's module: modprobe kvm_intel.";
  if (cpu.extension === "svm") return "Load the kernel's module: modprobe kvm_amd.";
  return "See the processor's advice.";
}
