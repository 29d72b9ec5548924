/**
 * The virtual machine that the driver's tests run: Debian's cloud kernel and an initramfs with busybox and the QEMU
 * guest agent. It is up in a few seconds under emulation, obeys the power button, and has a shell on its console.
 */
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { type CpioEntry, cpioArchive } from "../src/host/probes/cpio.ts";
import { run } from "../src/host/run.ts";

export const bootMarker = "strata test guest is up";
/** On the kernel's command line: do not react to the power button. */
export const stubbornWord = "strata.stubborn";

export interface QemuGuestFiles {
  kernel: string;
  initrd: string;
}

const version = 12;
/** In the order in which they need each other. */
const modules = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci",
  "drivers/block/virtio_blk",
  "drivers/scsi/scsi_common",
  "drivers/scsi/scsi_mod",
  "drivers/scsi/virtio_scsi",
  "drivers/scsi/sd_mod",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
  "drivers/char/virtio_console",
  "drivers/char/hw_random/virtio-rng",
  "drivers/virtio/virtio_balloon",
  "drivers/virtio/virtio_mem",
  "drivers/misc/pvpanic/pvpanic",
  "drivers/misc/pvpanic/pvpanic-mmio",
  "drivers/acpi/button",
  "drivers/input/evdev",
  "drivers/cdrom/cdrom",
  "fs/isofs/isofs",
];

// The console's prompt loop comes last: the marker says that all else is in place.
const initScript = `#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /proc /sys /dev /tmp /run /etc/acpi/PWRF /root /mnt /var/log /var/run
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts && mount -t devpts devpts /dev/pts
for module in ${modules.map((path) => basename(path)).join(" ")}; do insmod /modules/$module.ko; done
echo root:x:0:0:root:/root:/bin/sh > /etc/passwd
printf '#!/bin/sh\\npoweroff -f\\n' > /etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
while [ ! -e /dev/input/event0 ]; do sleep 0.05; done
grep -q ${stubbornWord} /proc/cmdline || acpid -f >/dev/null 2>&1 &
ip link set lo up
ip link set eth0 up 2>/dev/null
for port in /sys/class/virtio-ports/*; do
  if [ "$(cat $port/name)" = org.qemu.guest_agent.0 ]; then
    qemu-ga --method=virtio-serial --path=/dev/\${port##*/} --statedir=/run --daemonize --pidfile=/run/qga.pid
    until ls -l "/proc/$(cat /run/qga.pid)/fd" | grep -q vport; do sleep 0.1; done
  fi
done
echo "${bootMarker}: $(hostname), $(nproc) cpus, $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
while :; do setsid sh </dev/ttyS0 >/dev/ttyS0 2>&1; done
`;

/** Makes the guest's files below `directory` unless they are there. Needs Debian's mirror the first time. */
export async function makeQemuGuest(directory: string): Promise<QemuGuestFiles> {
  const entry = join(directory, `qemu-guest-${version}`);
  const files = { kernel: join(entry, "vmlinuz"), initrd: join(entry, "initrd") };
  const made = await access(files.initrd).then(
    () => true,
    () => false,
  );
  if (made) return files;
  await mkdir(directory, { recursive: true });
  const work = await mkdtemp(join(directory, "qemu-guest-"));
  try {
    const { stdout } = await run("apt-cache", ["depends", "linux-image-cloud-amd64"]);
    const kernelPackage = /Depends: (linux-image-\S+)/.exec(stdout)?.[1] ?? "";
    await unpack(work, kernelPackage);
    await unpack(work, "qemu-guest-agent");
    const kernel = (await readdir(join(work, "root/boot"))).find((name) => name.startsWith("vmlinuz-")) ?? "";
    await writeFile(
      join(work, "initrd"),
      await initramfs(join(work, "root"), kernel.slice("vmlinuz-".length)),
    );
    await rename(join(work, "root/boot", kernel), join(work, "vmlinuz"));
    await rm(join(work, "root"), { recursive: true });
    // Two test files may make them at the same time: what is there first stays.
    await rename(work, entry).catch((error) => access(files.initrd).catch(() => Promise.reject(error)));
    return files;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function unpack(work: string, name: string): Promise<void> {
  await run("apt-get", ["-q", "-o", "APT::Sandbox::User=root", "download", name], { cwd: work });
  const file = (await readdir(work)).find((entry) => entry.endsWith(".deb")) ?? "";
  await run("dpkg-deb", ["-x", file, "root"], { cwd: work });
  await rm(join(work, file));
}

async function initramfs(root: string, release: string): Promise<Uint8Array> {
  const directories = [
    "bin",
    "dev",
    "modules",
    "lib",
    "lib64",
    "lib/x86_64-linux-gnu",
    "usr",
    "usr/bin",
    "usr/sbin",
    "etc",
  ];
  const entries: CpioEntry[] = [
    ...directories.map((path) => ({ type: "directory" as const, path, mode: 0o755 })),
    { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    await program("bin/busybox", "/bin/busybox"),
    await program("usr/sbin/qemu-ga", join(root, "usr/sbin/qemu-ga")),
    await program("usr/bin/script", "/usr/bin/script"),
    { type: "file", path: "init", mode: 0o755, content: Buffer.from(initScript) },
  ];
  const { stdout } = await run("ldd", [join(root, "usr/sbin/qemu-ga"), "/usr/bin/script"]);
  const libraries = new Set([...stdout.matchAll(/(\/lib\S+) \(/g)].map(([, path]) => path ?? ""));
  for (const path of libraries) entries.push(await program(path.slice(1), path));
  for (const path of modules) {
    const file = join(root, "lib/modules", release, "kernel", `${path}.ko`);
    entries.push(await program(`modules/${basename(path)}.ko`, file));
  }
  return cpioArchive(entries);
}

async function program(path: string, source: string): Promise<CpioEntry> {
  return { type: "file", path, mode: 0o755, content: await readFile(source) };
}
