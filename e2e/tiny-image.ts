/**
 * A root archive small enough to boot often: static busybox as everything, Debian's cloud kernel and an initrd with
 * the virtio drivers. The same tree starts as a container in well under a second and as an emulated VM in a few.
 * Made the same, byte for byte, from the same packages; kept below the system's temporary directory.
 *
 * The guest takes its host name and addresses from its seed, DHCP and the metadata service (the last for IPv6, VMs only),
 * also for cards that come later; it answers HTTP on port 80 with its host name, has a
 * root shell on its console, and powers off in order on SIGPWR and SIGTERM (containers) or the ACPI power button and
 * Ctrl-Alt-Del (VMs).
 */
import { execFile } from "node:child_process";
import { hash, randomUUID } from "node:crypto";
import { access, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { type TarHeader, tarEnd, writeTarHeader } from "../src/core/tar-writer.ts";
import { readTar } from "../src/host/images/tar-reader.ts";

const exec = promisify(execFile);
const version = 1;
const busyboxPath = "/bin/busybox";
const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };

/** Loaded by the initrd, in this order, after what they depend on. */
const drivers = [
  "virtio_pci",
  "virtio_mmio",
  "virtio_blk",
  "virtio_scsi",
  "sd_mod",
  "virtio_net",
  "virtio_console",
  "virtio_rng",
  "virtio_mem",
  "crc32c_generic",
  "ext4",
  "isofs",
  "button",
  "evdev",
];

const initrdInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
for word in $(cat /proc/cmdline); do
  case $word in root=*) root=\${word#root=};; esac
done
tries=0
while :; do
  case $root in *=*) device=$(findfs "$root" 2>/dev/null);; *) device=$root;; esac
  [ -b "$device" ] && break
  tries=$((tries + 1))
  [ $tries -gt 200 ] && echo "no root file system $root" && exec sh
  usleep 50000
done
mount -t ext4 -o rw "$device" /newroot
mount --move /dev /newroot/dev
umount /proc /sys
exec switch_root /newroot /sbin/init
`;

const init = `#!/bin/busybox sh
# Process 1 of VM and container alike
export PATH=/bin:/sbin
if [ ! -e /proc/self ]; then
  mount -t proc proc /proc
  mount -t sysfs sys /sys
  [ -e /dev/null ] || mount -t devtmpfs dev /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts pts /dev/pts
  mount -t tmpfs shm /dev/shm
  vm=yes
fi
mount -t tmpfs -o mode=755 run /run 2>/dev/null
finish() {
  trap '' PWR TERM INT USR1 USR2
  echo "tiny: powering off"
  kill -TERM -1 2>/dev/null
  usleep 100000
  sync
  [ "$vm" = yes ] && mount -o remount,ro / 2>/dev/null
  poweroff -f
}
trap finish PWR TERM INT USR1 USR2
seed=/var/lib/cloud/seed/nocloud
if [ "$vm" = yes ]; then
  echo 0 > /proc/sys/kernel/ctrl-alt-del
  disk=$(findfs LABEL=cidata 2>/dev/null) && mkdir -p /run/seed && mount -t iso9660 -o ro "$disk" /run/seed && seed=/run/seed
  mkdir -p /run/acpi/PWRF
  printf '#!/bin/busybox sh\\nkill -PWR 1\\n' > /run/acpi/PWRF/00000080
  chmod 755 /run/acpi/PWRF/00000080
  acpid -d -c /run/acpi -l /dev/null >/dev/null 2>&1 &
fi
name=$(sed -n 's/^local-hostname: *//p' $seed/meta-data 2>/dev/null | tr -d '"')
[ -n "$name" ] && hostname "$name"
ip link set lo up
mkdir -p /run/www
hostname > /run/www/index.html
cat /proc/sys/kernel/random/uuid > /run/www/boot-id # another text after each start
httpd -p 80 -h /run/www
lease() {
  # Of two routers it would take turns.
  [ $1 = eth0 ] || echo 0 > /proc/sys/net/ipv6/conf/$1/accept_ra
  ip link set $1 up
  udhcpc -i $1 -s /etc/udhcpc -p /run/udhcpc.$1 -b -S -T 1 -A 1 >/dev/null 2>&1 &
}
if [ "$vm" = yes ]; then
  # Cards may come and go; busybox cannot be told by the kernel without a program that stays as well.
  while :; do
    for path in /sys/class/net/eth*; do
      card=\${path##*/}
      [ -e $path ] && [ ! -e /run/card.$card ] && : > /run/card.$card && lease $card
    done
    for path in /run/card.*; do
      card=\${path##*.}
      [ -e $path ] && [ ! -e /sys/class/net/$card ] && rm $path && kill $(cat /run/udhcpc.$card)
    done 2>/dev/null
    sleep 1
  done &
elif [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  if ip -4 addr show dev eth0 | grep -q inet; then
    [ -e /etc/resolv.conf ] || ip route | sed -n 's/^default via \\([^ ]*\\).*/nameserver \\1/p' > /etc/resolv.conf
  else
    lease eth0
  fi
fi
echo "tiny: ready"
# User data that is a script runs at each start, as with cloud-init's bootcmd.
[ "$(head -c 2 $seed/user-data 2>/dev/null)" = "#!" ] && { sh $seed/user-data >/run/user-data.log 2>&1 & }
console() {
  while :; do
    setsid -c sh -l <$1 >$1 2>&1
    usleep 200000
  done
}
console /dev/console &
[ "$vm" != yes ] && [ -c /dev/tty1 ] && console /dev/tty1 & # what people attach to in a container
while :; do wait; sleep 1 & done
`;

// A further card answers the way it was asked, and changes nothing else.
const udhcpcScript = `#!/bin/busybox sh
export PATH=/bin:/sbin
case $1 in
  bound|renew)
    ip -4 addr flush dev $interface
    ip addr add $ip/$mask dev $interface
    [ -n "$mtu" ] && ip link set $interface mtu $mtu
    number=\${interface#eth}
    if [ "$number" = 0 ]; then
      for gateway in $router; do ip route replace default via $gateway; break; done
      { for server in $dns; do echo "nameserver $server"; done; [ -n "$domain" ] && echo "search $domain"; } > /etc/resolv.conf
      if [ -n "$hostname" ]; then hostname "$hostname"; hostname > /run/www/index.html; fi
    else
      for gateway in $router; do ip route replace default via $gateway dev $interface table 10$number; break; done
      ip rule del table 10$number 2>/dev/null
      ip rule add from $ip table 10$number
    fi
    [ $1$number = bound0 ] && /etc/ipv6 $interface >/dev/null 2>&1 &;;
esac
`;

/**
 * Busybox has no DHCPv6 client: the IPv6 address of a VM's first card comes from the metadata service, its route from the
 * router's advertisements.
 */
const ipv6Script = `#!/bin/busybox sh
export PATH=/bin:/sbin
echo 0 > /proc/sys/net/ipv6/conf/$1/accept_dad
ask() {
  printf '%s HTTP/1.0\\r\\nHost: 169.254.169.254\\r\\nX-aws-ec2-metadata-token%s\\r\\n\\r\\n' "$1" "$2" | nc -w 3 169.254.169.254 80 | tail -n 1
}
tries=0
while [ $tries -lt 30 ]; do
  token=$(ask "PUT /latest/api/token" "-ttl-seconds: 60")
  mac=$(cat /sys/class/net/$1/address)
  address=$(ask "GET /latest/meta-data/network/interfaces/macs/$mac/ipv6s" ": $token")
  case $address in *:*) ip -6 addr add $address/128 dev $1; exit;; esac
  tries=$((tries + 1))
  sleep 1
done
`;

/** The path of the archive (an uncompressed tar), made at the first call on this machine. Needs apt and busybox-static. */
export async function tinyImage(cacheDirectory = join(tmpdir(), "strata-tiny-image")): Promise<string> {
  const busybox = await readFile(busyboxPath);
  const kernelPackage = await kernelPackageName();
  const ingredients = [
    version,
    hash("sha256", busybox),
    kernelPackage,
    drivers,
    initrdInit,
    init,
    udhcpcScript,
    ipv6Script,
  ];
  const path = join(cacheDirectory, `${hash("sha256", JSON.stringify(ingredients)).slice(0, 16)}.tar`);
  if (await exists(path)) return path;
  await mkdir(cacheDirectory, { recursive: true });
  const work = join(cacheDirectory, randomUUID());
  await mkdir(work);
  try {
    const kernel = await fetchKernel(kernelPackage, work);
    await writeFile(join(work, "tiny.tar"), await archive(busybox, kernel));
    await rename(join(work, "tiny.tar"), path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return path;
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

interface Kernel {
  version: string;
  image: Buffer;
  /** Names and contents of the drivers and what they need, in the order of loading. */
  modules: { name: string; path: string; content: Buffer }[];
}

async function kernelPackageName(): Promise<string> {
  const architecture = architectures[process.arch];
  const { stdout } = await exec("apt-cache", ["depends", "--important", `linux-image-cloud-${architecture}`]);
  const name = /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
  if (!name) throw new Error("apt knows no cloud kernel; run apt-get update on a Debian host");
  return name;
}

async function fetchKernel(name: string, work: string): Promise<Kernel> {
  await exec("apt-get", ["download", "-q", name], { cwd: work, timeout: 300_000 });
  const deb = (await readdir(work)).find((file) => file.endsWith(".deb"));
  if (!deb) throw new Error(`apt-get download brought no package for ${name}`);
  const tar = join(work, "data.tar");
  await exec("sh", ["-c", 'dpkg-deb --fsys-tarfile "$1" > "$2"', "sh", join(work, deb), tar]);
  let image: Buffer | undefined;
  let kernelVersion = "";
  const found = new Map<string, { path: string; content: Buffer }>();
  for await (const entry of readTar(Readable.from([await readFile(tar)]))) {
    const path = entry.path.replace(/^\.\//, "");
    const module = /\/([^/]+)\.ko$/.exec(path)?.[1];
    const isKernel = path.startsWith("boot/vmlinuz-");
    if (entry.type !== "file" || (!module && !isKernel)) continue;
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry.content) chunks.push(Uint8Array.from(chunk));
    const content = Buffer.concat(chunks);
    if (isKernel) [image, kernelVersion] = [content, path.slice("boot/vmlinuz-".length)];
    else if (module) found.set(module.replaceAll("-", "_"), { path, content });
  }
  if (!image) throw new Error(`${name} holds no kernel`);
  return { version: kernelVersion, image, modules: inLoadingOrder(found) };
}

function inLoadingOrder(found: ReadonlyMap<string, { path: string; content: Buffer }>): Kernel["modules"] {
  const ordered = new Map<string, Kernel["modules"][number]>();
  const add = (name: string) => {
    const module = found.get(name);
    if (!module || ordered.has(name)) return; // what is no module is part of the kernel
    const depends = /\0depends=([^\0]*)\0/.exec(module.content.toString("latin1"))?.[1] ?? "";
    for (const other of depends.split(",")) if (other !== "") add(other.replaceAll("-", "_"));
    ordered.set(name, { name, ...module });
  };
  for (const name of drivers) add(name);
  return [...ordered.values()];
}

async function archive(busybox: Buffer, kernel: Kernel): Promise<Buffer> {
  const { stdout } = await exec(busyboxPath, ["--list"]);
  const applets = stdout.split("\n").filter((name) => name !== "" && name !== "busybox");
  const out = new Archive();
  for (const path of "bin boot dev etc lib lib/modules proc root run sbin sys tmp var var/lib".split(" "))
    out.directory(path);
  for (const path of ["var/lib/cloud", "var/lib/cloud/seed", "var/lib/cloud/seed/nocloud"])
    out.directory(path);
  out.file("bin/busybox", busybox, 0o755);
  for (const name of applets) out.link(`bin/${name}`, "busybox");
  out.file("sbin/init", init, 0o755);
  out.file("etc/udhcpc", udhcpcScript, 0o755);
  out.file("etc/ipv6", ipv6Script, 0o755);
  out.file("etc/os-release", 'PRETTY_NAME="Strata tiny test image"\nID=tiny\n');
  out.file("etc/passwd", "root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
  out.file("etc/group", "root:x:0:\nnogroup:x:65534:\n");
  out.file("etc/hosts", "127.0.0.1 localhost\n");
  out.file("etc/profile", "export PATH=/bin:/sbin PS1='\\h:\\w# '\n");
  out.file(`boot/vmlinuz-${kernel.version}`, kernel.image);
  out.file(`boot/initrd.img-${kernel.version}`, initrd(busybox, kernel));
  out.directory(`lib/modules/${kernel.version}`);
  for (const { name, content } of kernel.modules)
    out.file(`lib/modules/${kernel.version}/${name}.ko`, content);
  return out.end();
}

class Archive {
  #parts: Buffer[] = [];

  directory(path: string): void {
    const mode = path === "tmp" ? 0o1777 : 0o755;
    this.#parts.push(writeTarHeader({ ...common, path, type: "directory", mode }));
  }

  link(path: string, target: string): void {
    this.#parts.push(writeTarHeader({ ...common, path, type: "symlink", mode: 0o777, target }));
  }

  file(path: string, content: string | Buffer, mode = 0o644): void {
    const bytes = Buffer.from(content);
    const padding = Buffer.alloc((512 - (bytes.length % 512)) % 512);
    this.#parts.push(
      writeTarHeader({ ...common, path, type: "file", mode, sizeBytes: bytes.length }),
      bytes,
      padding,
    );
  }

  end(): Buffer {
    return Buffer.concat([...this.#parts, tarEnd]);
  }
}

const common: Omit<TarHeader, "path" | "type" | "mode"> = {
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  mtimeSeconds: 1_700_000_000,
  target: "",
  attributes: new Map(),
};

/** An uncompressed cpio archive (newc): the kernel copies it faster than it unpacks one. */
function initrd(busybox: Buffer, kernel: Kernel): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  const add = (path: string, mode: number, content: string | Buffer = "") => {
    const bytes = Buffer.from(content);
    const fields = [inode++, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, path.length + 1, 0];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${path}\0`;
    parts.push(aligned(Buffer.from(header)), aligned(bytes));
  };
  for (const path of ["bin", "dev", "proc", "sys", "newroot", "modules"]) add(path, 0o040755);
  add("bin/busybox", 0o100755, busybox);
  add("init", 0o100755, initrdInit);
  for (const { name, content } of kernel.modules) add(`modules/${name}.ko`, 0o100644, content);
  add("modules/order", 0o100644, kernel.modules.map(({ name }) => `${name}.ko\n`).join(""));
  add("TRAILER!!!", 0);
  return Buffer.concat(parts);
}

function aligned(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
