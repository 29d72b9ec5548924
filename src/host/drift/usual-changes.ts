/**
 * What guests write by themselves, at each start and while they run, on Debian, Ubuntu, Fedora, Alpine and alike. Such
 * changes are no drift: they are told with the rule that knows them, and shown when asked for.
 *
 * A rule is narrow: the files that software keeps for itself, never a directory in which people or packages put what
 * matters. So /etc/ssh/ssh_host_* is here and /etc/ssh is not.
 */
import type { Difference } from "../../kinds/drift.ts";

interface Rule {
  /** For people. */
  name: string;
  /** Of paths without a slash at the beginning. A path that ends in `/` takes all below it, `*` anything but a slash. */
  paths: readonly string[];
}

export const applicationData = "data of the application";
export const whatHostMounts = "what the host mounts";

const rules: readonly Rule[] = [
  {
    name: "identity of the machine",
    paths: [
      "etc/machine-id",
      "var/lib/dbus/machine-id",
      "etc/hostname",
      "etc/hosts",
      "etc/ssh/ssh_host_*",
      "etc/mailname",
      "etc/iscsi/initiatorname.iscsi",
      "etc/nvme/hostid",
      "etc/nvme/hostnqn",
    ],
  },
  {
    name: "network settings of this start",
    paths: [
      "etc/resolv.conf",
      "etc/.resolv.conf.systemd-resolved.bak",
      "etc/netplan/50-cloud-init.yaml",
      "etc/network/interfaces.d/50-cloud-init",
      "etc/systemd/network/10-cloud-init-*",
      "etc/udev/rules.d/70-persistent-net.rules",
      "etc/sysconfig/network-scripts/ifcfg-eth*",
      "var/lib/dhcp/",
      "var/lib/dhcpcd/",
      "var/lib/NetworkManager/",
    ],
  },
  {
    name: "cloud-init's state",
    paths: [
      "var/lib/cloud/",
      "etc/cloud/cloud.cfg.d/90-installer-network.cfg",
      "etc/cloud/cloud-init.disabled",
      "etc/apt/sources.list.d/*.cloud-init.*",
      "etc/sudoers.d/90-cloud-init-users",
    ],
  },
  {
    name: "copies that tools for accounts make",
    paths: ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"].map((name) => `etc/${name}-`),
  },
  { name: "logs", paths: ["var/log/"] },
  { name: "temporary files", paths: ["tmp/", "var/tmp/", "run/", "var/run/", "var/lock/", "lost+found/"] },
  {
    name: whatHostMounts,
    paths: [".dockerenv", "dev/", "proc/", "sys/", "etc/mtab", "run", "dev", "proc", "sys", "lost+found"],
  },
  {
    name: "caches",
    paths: [
      "etc/ld.so.cache",
      "etc/.pwd.lock",
      "var/cache/ldconfig/",
      "var/cache/apt/*",
      "var/cache/apt/archives/",
      "var/cache/man/",
      "var/cache/debconf/*-old",
      "var/cache/private",
      "var/lib/apt/lists/",
      "var/lib/apt/periodic/",
      "var/lib/apt/extended_states",
      "var/lib/command-not-found/",
      "root/.cache/",
    ],
  },
  {
    name: "state of services",
    paths: [
      "var/lib/systemd/",
      "var/lib/private",
      "var/lib/chrony/",
      "var/lib/logrotate/",
      "var/lib/misc/",
      "var/lib/ucf/",
      "var/lib/urandom/",
      "var/lib/seedrng/",
      "var/lib/sudo/",
      "var/lib/dbus/",
      "var/lib/polkit-1/",
      "var/lib/plymouth/",
      "var/spool/cron/atjobs/.SEQ",
      "var/lib/unattended-upgrades/",
      "var/lib/update-notifier/",
      "etc/adjtime",
      "etc/.updated",
      "var/.updated",
    ],
  },
  {
    name: "history of shells",
    paths: ["root/.bash_history", "home/*/.bash_history", "root/.ash_history", "root/.lesshst"],
  },
];

const patterns = rules.map(({ name, paths }) => ({
  name,
  pattern: new RegExp(`^(?:${paths.map(toPattern).join("|")})$`, "s"),
}));

/** The rule that knows the change, or undefined. What the image brought and is gone is no start's doing, but for caches. */
export function usualChange(path: string, change: Difference["change"]): string | undefined {
  const rule = patterns.find(({ pattern }) => pattern.test(path));
  if (change === "removed" && rule !== undefined && !goes.has(rule.name)) return undefined;
  return rule?.name;
}

const goes: ReadonlySet<string> = new Set(["caches", "temporary files", "logs", "identity of the machine"]);

function toPattern(path: string): string {
  const escaped = path.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", "[^/]*");
  return path.endsWith("/") ? `${escaped.slice(0, -1)}/.*` : escaped;
}
