/** What the host says about virtualization: facts for people and doctor. They explain a failed proof, they prove nothing. */
import { constants } from "node:fs";
import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Reads below `root` (default `/`). Never throws: what cannot be read is not there. */
export async function readKvmFacts(root = "/"): Promise<Record<string, string>> {
  const text = (path: string) =>
    readFile(join(root, path), "utf8").then(
      (all) => all.trim(),
      () => "",
    );
  const cpuinfo = await text("proc/cpuinfo");
  const flags = new Set((/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? "").split(" "));
  const extension = flags.has("vmx") ? "vmx" : flags.has("svm") ? "svm" : "none";
  const nested =
    (await text("sys/module/kvm_intel/parameters/nested")) ||
    (await text("sys/module/kvm_amd/parameters/nested"));
  const groups = await readdir(join(root, "sys/kernel/iommu_groups")).catch(() => []);
  const device = await access(join(root, "dev/kvm"), constants.R_OK | constants.W_OK).then(
    () => "present",
    (error: NodeJS.ErrnoException) => (error.code === "ENOENT" ? "absent" : "not accessible"),
  );
  return {
    "kvm-device": device,
    "cpu-extension": extension,
    "host-is-virtual": flags.has("hypervisor") ? "yes" : "no",
    "nested-virtualization": nested === "" ? "unknown" : /^[Y1]/.test(nested) ? "on" : "off",
    iommu: groups.length > 0 ? `${groups.length} groups` : "off",
  };
}
