/**
 * What of a built tree stays: neither what must be a guest's own (keys, ids, its name), nor what says when it was built
 * (caches, logs, lists of packages), so that the same Dockerfile gives the same image. Pure.
 */
import { workDirectory } from "./completion.ts";

/** A file with other content, or a symbolic link instead. */
export type Replacement = { link: string } | { text: (text: string) => string };

export interface TreeTidying {
  of(path: string, isDirectory: boolean): "keep" | "drop" | Replacement;
  /** What the tree lacks: paths with what belongs there, `text` called with "". */
  missing: readonly (readonly [path: string, content: Replacement])[];
}

/** Below these, files go and directories stay. */
const emptied = [
  "run",
  "var/cache/apt",
  "var/cache/ldconfig",
  "var/cache/man",
  "var/lib/apt/lists",
  "var/lib/cloud/instances",
  "var/log/apt",
  "var/log/journal",
];

const dropped: readonly RegExp[] = [
  new RegExp(`^${workDirectory.replace(".", "\\.")}(/|$)`),
  /^\.dockerenv$/,
  /^etc\/(passwd|group|shadow|gshadow|subuid|subgid)-$/,
  /^etc\/hostname$/,
  /^etc\/\.pwd\.lock$/,
  /^var\/cache\/debconf\/.*-old$/,
  /^var\/lib\/dpkg\/[^/]*-old$/,
  /^var\/lib\/dpkg\/(lock|lock-frontend|triggers\/Lock)$/,
  /^var\/lib\/dbus\/machine-id$/,
  /^var\/lib\/systemd\/random-seed$/,
  /^var\/log\/(dpkg|alternatives|bootstrap|fontconfig)\.log$/,
  /^var\/log\/(faillog|lastlog)$/,
];

const hostKeys = /^etc\/ssh\/ssh_host_/;
const localNames = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const resolver = "../run/systemd/resolve/stub-resolv.conf";
/** 2023-11-14, as in images built from Debian's archive. */
const fixedDay = "19675";

/** `paths`: all of the tree, without a leading slash. */
export function tidyTree(paths: ReadonlySet<string>): TreeTidying {
  const cloudInit = paths.has("usr/bin/cloud-init");
  const resolved = paths.has("etc/systemd/network/80-strata.network");
  const replaced: (readonly [string, Replacement])[] = [
    ["etc/machine-id", { text: () => "" }],
    ["etc/shadow", { text: withoutDays }],
    ["etc/hosts", { text: (text) => (text.trim() === "" ? localNames : text) }],
    ...(resolved ? [["etc/resolv.conf", { link: resolver }] as const] : []),
  ];
  const replacements = new Map(replaced);
  return {
    of(path, isDirectory) {
      if (hostKeys.test(path)) return cloudInit ? "drop" : "keep";
      if (dropped.some((pattern) => pattern.test(path))) return "drop";
      if (!isDirectory && emptied.some((directory) => path.startsWith(`${directory}/`))) return "drop";
      return (isDirectory ? undefined : replacements.get(path)) ?? "keep";
    },
    missing: replaced.filter(([path]) => path !== "etc/shadow" && !paths.has(path)),
  };
}

/** When a password was set last means nothing for an account without one. */
export function withoutDays(shadow: string): string {
  return shadow.replace(/^([^:\n]*:[*!][^:\n]*):\d+:/gm, `$1:${fixedDay}:`);
}
