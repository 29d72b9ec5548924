/** Limits and settings of the kernel that decide whether many guests, confined guests and namespaces are possible. */
import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

export interface KernelFacts {
  release: string;
  operatingSystem: string;
  /** user.max_user_namespaces; undefined: a kernel without user namespaces. */
  maxUserNamespaces: number | undefined;
  /** kernel.unprivileged_userns_clone of Debian; undefined where it does not exist. */
  unprivilegedClone: boolean | undefined;
  /** kernel.apparmor_restrict_unprivileged_userns of Ubuntu. */
  apparmorRestricts: boolean;
  maxInotifyInstances: number;
  apparmor: boolean;
  selinux: boolean;
}

const wantedUserNamespaces = 1000;
/** `iifname` in the postrouting hook of nftables. */
const oldestKernel = [5, 7] as const;

export async function readKernel(files: HostFiles): Promise<KernelFacts> {
  const number = async (path: string) => {
    const text = await files.text(path);
    return text === "" ? undefined : Number(text);
  };
  const clone = await number("proc/sys/kernel/unprivileged_userns_clone");
  return {
    release: await files.text("proc/sys/kernel/osrelease"),
    operatingSystem:
      /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(await files.text("etc/os-release"))?.[1] ?? "unknown",
    maxUserNamespaces: await number("proc/sys/user/max_user_namespaces"),
    unprivilegedClone: clone === undefined ? undefined : clone === 1,
    apparmorRestricts: (await number("proc/sys/kernel/apparmor_restrict_unprivileged_userns")) === 1,
    maxInotifyInstances: (await number("proc/sys/fs/inotify/max_user_instances")) ?? 0,
    apparmor: (await files.text("sys/module/apparmor/parameters/enabled")) === "Y",
    selinux: (await files.text("sys/fs/selinux/enforce")) === "1",
  };
}

export function kernelFindings(kernel: KernelFacts): Finding[] {
  return [releaseFinding(kernel), userNamespaceFinding(kernel)];
}

export function securityFindings(kernel: KernelFacts): Finding[] {
  if (kernel.apparmor || kernel.selinux) {
    const name = kernel.apparmor ? "AppArmor" : "SELinux";
    return [
      {
        area: "security",
        title: `${name} is on`,
        level: "ok",
        facts: { apparmor: kernel.apparmor ? "on" : "off", selinux: kernel.selinux ? "enforcing" : "off" },
        meaning: kernel.apparmor
          ? "Containers run under a profile of it, beside shifted ids and their other confinement."
          : "Guests are confined by shifted ids, namespaces and seccomp; SELinux confines Strata itself.",
        advice: "",
      },
    ];
  }
  return [
    {
      area: "security",
      title: "neither AppArmor nor SELinux is on",
      level: "info",
      facts: { apparmor: "off", selinux: "off" },
      meaning:
        "Guests are confined by shifted ids, namespaces, seccomp and limits, without this further layer.",
      advice:
        "On Debian and Ubuntu, boot with apparmor=1 security=apparmor and install the package apparmor.",
    },
  ];
}

function releaseFinding(kernel: KernelFacts): Finding {
  const [major = 0, minor = 0] = kernel.release.split(".").map((part) => Number.parseInt(part, 10));
  const recent = major > oldestKernel[0] || (major === oldestKernel[0] && minor >= oldestKernel[1]);
  return {
    area: "kernel",
    title: `Linux ${kernel.release}, ${kernel.operatingSystem}`,
    level: recent ? "ok" : "problem",
    facts: {
      kernel: kernel.release,
      "operating system": kernel.operatingSystem,
      "inotify instances": String(kernel.maxInotifyInstances),
    },
    meaning: recent
      ? "Recent enough for everything."
      : `Networks need Linux ${oldestKernel.join(".")} for their way to the outside.`,
    advice: recent ? "" : "Upgrade to Debian 12 or later.",
  };
}

function userNamespaceFinding(kernel: KernelFacts): Finding {
  const { maxUserNamespaces: most } = kernel;
  const facts = {
    max_user_namespaces: most === undefined ? "not in this kernel" : String(most),
    ...(kernel.unprivilegedClone === undefined
      ? {}
      : { unprivileged_userns_clone: kernel.unprivilegedClone ? "1" : "0" }),
    ...(kernel.apparmorRestricts ? { apparmor_restrict_unprivileged_userns: "1" } : {}),
  };
  const common = { area: "kernel", facts } as const;
  if (most === undefined || most === 0) {
    return {
      ...common,
      title: "user namespaces are off",
      level: "problem",
      meaning: "Containers run with shifted ids in user namespaces; without them none can start.",
      advice:
        most === undefined
          ? "Use a kernel with CONFIG_USER_NS, such as Debian's."
          : "Allow them: sysctl -w user.max_user_namespaces=10000, and in /etc/sysctl.d to keep it.",
    };
  }
  if (most < wantedUserNamespaces) {
    return {
      ...common,
      title: `only ${most} user namespaces are allowed`,
      level: "warning",
      meaning: "Each container takes one, and those of other software count as well.",
      advice: "Allow more: sysctl -w user.max_user_namespaces=10000, and in /etc/sysctl.d to keep it.",
    };
  }
  return {
    ...common,
    title: "user namespaces are on",
    level: "ok",
    // Strata makes them as root, so limits on unprivileged users do not matter.
    meaning: "Root in a container is nobody on this machine.",
    advice: "",
  };
}
