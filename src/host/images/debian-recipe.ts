/**
 * What goes into an image built from a Debian suite. One tree serves both types of guest, so nothing in it may depend
 * on the type: systemd and cloud-init tell a container from a VM by themselves.
 *
 * Every choice here is for boot time: a guest may run on an emulated processor, twenty times slower than a real one.
 */
import { StrataError } from "../../core/errors.ts";

/** Part of what a build is remembered by. Increase it with every change to this file. */
export const recipeVersion = 5;

/** What every guest needs: init, network, names, its seed, a way in. */
export const basePackages: readonly string[] = [
  "systemd-sysv",
  "systemd-resolved",
  "dbus",
  "openssh-server",
  "cloud-init",
  "sudo",
  "initramfs-tools",
  "lz4",
  "qemu-guest-agent",
  "iproute2",
  "netbase",
  "ca-certificates",
];

const kernelPackages: Record<string, string> = {
  x64: "linux-image-cloud-amd64",
  arm64: "linux-image-cloud-arm64",
};

/** All packages to install, sorted. @throws Unsupported on a processor that Strata has no kernel for. */
export function debianPackages(requested: readonly string[], architecture: string = process.arch): string[] {
  return [...new Set([...basePackages, kernelPackage(architecture), ...requested])].sort();
}

/** @throws Unsupported on a processor that Strata has no kernel for. */
export function kernelPackage(architecture: string = process.arch): string {
  const kernel = kernelPackages[architecture];
  if (kernel !== undefined) return kernel;
  throw new StrataError(
    "Unsupported",
    `cannot build Debian images on a host of the architecture ${architecture}`,
  );
}

/**
 * Before the kernel is installed, because its installation makes the initrd. Without udev in it, which would look at
 * every device a first time; the second time, in the real root, is the one that counts.
 */
export const essentialHook = `set -eu
cd "$1"
mkdir -p etc/initramfs-tools/conf.d usr/share/initramfs-tools/modules.d
mkdir -p etc/initramfs-tools/scripts/init-top etc/initramfs-tools/scripts/init-bottom
cat > etc/initramfs-tools/conf.d/strata <<'END'
# The few modules that Strata's VMs need, fast to unpack
MODULES=list
COMPRESS=lz4
RESUME=none
END
cat > usr/share/initramfs-tools/modules.d/strata <<'END'
virtio_pci
virtio_mmio
virtio_blk
virtio_scsi
sd_mod
virtio_net
virtio_console
virtio_rng
ext4
crc32c_generic
END
cat > etc/initramfs-tools/scripts/init-top/udev <<'END'
#!/bin/sh
# Instead of udev's own: the root disk's driver is loaded by name, the kernel makes the device
[ "$1" != prereqs ] || echo
END
cat > etc/initramfs-tools/scripts/init-bottom/udev <<'END'
#!/bin/sh
# Instead of udev's own, which stops the daemon as well
if [ "$1" = prereqs ]; then echo; else mount -n -o move /dev "$rootmnt/dev"; fi
END
chmod 755 etc/initramfs-tools/scripts/init-top/udev etc/initramfs-tools/scripts/init-bottom/udev
`;

const cloudConfig = `# Strata hands its seed over as a disk labelled cidata (VM) or in /var/lib/cloud/seed/nocloud (container)
datasource_list: [NoCloud, None]
# systemd-networkd asks DHCP on every card
network: {config: disabled}
disable_root: false
preserve_hostname: false
ssh_genkeytypes: [ed25519, ecdsa]
cloud_init_modules: [seed_random, bootcmd, write_files, set_hostname, update_hostname, users_groups, ssh]
cloud_config_modules: [ssh_import_id, set_passwords, timezone, disk_setup, mounts, runcmd]
cloud_final_modules: [package_update_upgrade_install, write_files_deferred, scripts_per_once, scripts_per_boot,
  scripts_per_instance, scripts_user, phone_home, final_message, power_state_change]
`;

const dhcp = `[Match]
Name=en* eth*

[Network]
DHCP=ipv4
IPv6AcceptRA=yes
# Names come from the network's own DNS, never from whoever answers first
LLMNR=no
MulticastDNS=no

[DHCPv4]
ClientIdentifier=mac
UseDomains=yes
UseMTU=yes
`;

const waitOnline = `# A guest without a card has nothing to wait for
[Service]
ExecCondition=/bin/sh -c 'for card in /sys/class/net/*; do [ "$card" = /sys/class/net/lo ] || exit 0; done; exit 1'
ExecStart=
ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=60
`;

const growRoot = `[Unit]
Description=Grow the root file system to its disk
ConditionVirtualization=!container
DefaultDependencies=no
After=systemd-remount-fs.service
Before=local-fs.target

[Service]
Type=oneshot
ExecStart=/usr/lib/systemd/systemd-growfs /

[Install]
WantedBy=local-fs.target
`;

/** cloud-init's own probes for dozens of clouds first, in shell; there is only one here. */
const cloudInitGenerator = `#!/bin/sh
[ -e /etc/cloud/cloud-init.disabled ] && exit 0
grep -q cloud-init=disabled /proc/cmdline 2>/dev/null && exit 0
mkdir -p /run/cloud-init "$2/multi-user.target.wants"
: > /run/cloud-init/enabled
ln -snf /usr/lib/systemd/system/cloud-init.target "$2/multi-user.target.wants/cloud-init.target"
`;

/** Debian's start script looks its entry point up in the metadata of all Python packages. */
const cloudInitStart = `#!/usr/bin/python3
import sys

from cloudinit.cmd.main import main

if __name__ == "__main__":
    sys.exit(main())
`;

/** Units that need no update after boot are told so by a time stamp not older than /usr (systemd-update-done). */
const updated = "# No update of /etc and /var is due\n";

const maskedUnits = [
  // Kernel debugging, out of reach in a container and one mount less to wait for in a VM
  "sys-kernel-config.mount",
  "sys-kernel-debug.mount",
  "sys-kernel-tracing.mount",
  "modprobe@configfs.service",
  "modprobe@drm.service",
  "modprobe@efi_pstore.service",
  "proc-sys-fs-binfmt_misc.automount",
  "systemd-binfmt.service",
  "systemd-pstore.service",
  "apt-daily.timer",
  "apt-daily-upgrade.timer",
  "dpkg-db-backup.timer",
  "e2scrub_all.timer",
  "e2scrub_reap.service",
  "fstrim.timer",
  "man-db.timer",
  "cloud-init-hotplugd.socket",
];

const files: readonly [path: string, text: string][] = [
  ["/etc/cloud/cloud.cfg.d/90_strata.cfg", cloudConfig],
  ["/etc/systemd/network/80-strata.network", dhcp],
  ["/etc/systemd/system/systemd-networkd-wait-online.service.d/strata.conf", waitOnline],
  ["/etc/systemd/system/strata-grow-root.service", growRoot],
  ["/etc/fstab", "# The root file system is mounted by the kernel's command line or by the container\n"],
  ["/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"],
  ["/etc/default/locale", "LANG=C.UTF-8\n"],
  ["/etc/machine-id", ""],
  ["/etc/ssh/sshd_config.d/90-strata.conf", "PasswordAuthentication no\n"],
  ["/etc/systemd/system-generators/cloud-init-generator", cloudInitGenerator],
  ["/usr/bin/cloud-init", cloudInitStart],
  ["/etc/.updated", updated],
  ["/var/.updated", updated],
];

const writeFiles = files
  .map(([path, text]) => {
    const directory = path.slice(0, path.lastIndexOf("/"));
    return `mkdir -p "$1${directory}"\ncat > "$1${path}" <<'END'\n${text}END\n`;
  })
  .join("");

/**
 * The account that cloud-init makes at a guest's first start, made with the image by cloud-init's own code: the first start
 * finds it, so a guest's root is as its image afterwards. It has neither a password nor keys, and no rule of sudo yet.
 */
const makeAccount = `chroot "$1" python3 - <<'END'
from cloudinit import ssh_util, stages
from cloudinit.distros import ug_util

init = stages.Init()
init.read_cfg()
accounts, _ = ug_util.normalize_users_groups(init.cfg, init.distro)
for name, settings in accounts.items():
    settings.pop("default", None)
    init.distro.create_user(name, **settings)
    ssh_util.setup_user_keys(set(), name)
ssh_util.setup_user_keys(set(), "root")
END
rm -f "$1/etc/sudoers.d/90-cloud-init-users"
`;

/** After all packages: what makes the tree a guest's. */
export const configureHook = `set -eu
chroot "$1" dpkg-divert --quiet --local --rename --add /usr/bin/cloud-init
${writeFiles}
chmod 755 "$1/usr/bin/cloud-init" "$1/etc/systemd/system-generators/cloud-init-generator"
mkdir -p "$1/var/lib/cloud/seed/nocloud"
# Byte code that Python need not compare with its source at each start; dpkg replaces both together
chroot "$1" python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.* || true
chroot "$1" systemctl enable systemd-networkd.service strata-grow-root.service
chroot "$1" systemctl mask ${maskedUnits.join(" ")}
${makeAccount}`;

/** The same, and nothing left that must be a guest's own. */
export const customizeHook = `${configureHook}rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/var/lib/dbus/machine-id" "$1/var/lib/systemd/random-seed"
rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/99mmdebstrap"
rm -rf "$1/var/lib/cloud/instances" "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/cache/debconf/*-old
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
`;

/** Manuals and translations of messages: large, and installed again with any package a guest adds. */
export const excludedPaths = [
  "/usr/share/man/*",
  "/usr/share/locale/*",
  "/usr/share/doc/*",
  "/usr/share/info/*",
];
