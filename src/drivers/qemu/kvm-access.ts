import { chmod, stat } from "node:fs/promises";

const kvmDevice = "/dev/kvm";

/**
 * Lets an unprivileged QEMU open /dev/kvm; returns the groups that it needs for that. With udev the device belongs to
 * group kvm (Debian) or is open to all (upstream); where neither holds, it is made like upstream's.
 */
export async function ensureKvmAccess(): Promise<number[]> {
  const { mode, gid } = await stat(kvmDevice);
  if ((mode & 0o006) === 0o006) return [];
  if (gid !== 0 && (mode & 0o060) === 0o060) return [gid];
  await chmod(kvmDevice, 0o666);
  return [];
}
