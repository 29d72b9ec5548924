import { StrataError } from "../../core/errors.ts";
import type { GuestSpec } from "../driver.ts";
import { maxNics } from "./command-line.ts";
import { type QemuConfig, qemuConfigSchema } from "./qemu-config.ts";

/** Targets of one controller, the lowest number of any that QEMU has. */
const maxVolumes = 255;

/** The specification with its configuration parsed. @throws Invalid for what no virtual machine of ours can be. */
export function validateGuest(spec: GuestSpec): GuestSpec<QemuConfig> {
  const invalid = (message: string) => new StrataError("Invalid", `cannot make ${spec.title}: ${message}`);
  if (spec.type !== "vm") throw invalid("the driver qemu runs virtual machines only");
  if (spec.root.type !== "disk") throw invalid("a virtual machine needs a disk, not a directory tree");
  if (spec.nics.length > maxNics) throw invalid(`a virtual machine has at most ${maxNics} network cards`);
  if (new Set(spec.nics.map((nic) => nic.port)).size < spec.nics.length) {
    throw invalid("two of its network cards have the same port");
  }
  const volumes = spec.volumes ?? [];
  if (volumes.some(({ type }) => type !== "disk")) throw invalid("a virtual machine takes volumes as disks");
  if (volumes.length > maxVolumes) throw invalid(`a virtual machine has at most ${maxVolumes} volumes`);
  if (new Set(volumes.map(({ id }) => id)).size < volumes.length) throw invalid("two of its volumes are one");
  const config = qemuConfigSchema.safeParse(spec.config);
  if (!config.success) throw invalid(config.error.issues.map((issue) => issue.message).join("; "));
  return { ...spec, config: config.data as QemuConfig };
}
