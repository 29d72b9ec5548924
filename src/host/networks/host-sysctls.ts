/**
 * Settings of the host's kernel that networks need. What a setting was before is written down first, in the run
 * directory, which lives exactly as long as the setting does: until the next boot.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { uplinkAliasPrefix } from "./network-plan.ts";

interface Setting {
  path: string;
  /** At least this. */
  wanted: number;
}

const settings: readonly Setting[] = [
  { path: "/proc/sys/net/ipv4/ip_forward", wanted: 1 },
  // Each DHCP and DNS process takes one, all as root's; the default of 128 is soon used up.
  { path: "/proc/sys/fs/inotify/max_user_instances", wanted: 1024 },
];

const forwarding6 = "/proc/sys/net/ipv6/conf/all/forwarding";

/** A host that forwards ignores router advertisements, and forgets what it learned from them, unless told not to (2). */
async function ipv6Settings(devices: readonly string[]): Promise<Setting[]> {
  if (devices.length === 0) return [];
  const listening: Setting[] = [];
  for (const device of new Set(devices)) {
    const path = `/proc/sys/net/ipv6/conf/${device}/accept_ra`;
    const now = (await readFile(path, "utf8").catch(() => "")).trim();
    if (now === "1") listening.push({ path, wanted: 2 });
  }
  return [...listening, { path: forwarding6, wanted: 1 }];
}

function wantedOf(path: string): number {
  return settings.find((setting) => setting.path === path)?.wanted ?? (path === forwarding6 ? 1 : 2);
}

const recordSchema = z.record(z.string(), z.string());

export class HostSysctls {
  readonly #record: string;

  /** `directory`: the daemon's for networks, in its run directory. */
  constructor(directory: string) {
    this.#record = join(directory, "sysctls.json");
  }

  /**
   * Raises what is too low. `outsideDevices6`: interfaces by which the host reaches the outside with IPv6; with one, it
   * forwards IPv6 too, and goes on to learn its routes from router advertisements.
   */
  async ensure(outsideDevices6: readonly string[] = []): Promise<void> {
    for (const { path, wanted } of [...settings, ...(await ipv6Settings(outsideDevices6))]) {
      const before = (await readFile(path, "utf8").catch(() => String(wanted))).trim();
      if (Number(before) >= wanted) continue;
      const record = await this.#read();
      if (record[path] === undefined) await this.#write({ ...record, [path]: before });
      await writeFile(path, String(wanted));
    }
  }

  /**
   * Puts back what was changed, unless somebody else came to rely on it: another daemon's uplinks, or bridges of other
   * software that forwards.
   */
  async restore(): Promise<void> {
    const record = await this.#read();
    const shared = await othersForward();
    for (const [path, before] of Object.entries(record).reverse()) {
      const now = (await readFile(path, "utf8").catch(() => "")).trim();
      if (!shared && now === String(wantedOf(path))) await writeFile(path, before);
    }
    await rm(this.#record, { force: true });
  }

  async #read(): Promise<Record<string, string>> {
    const text = await readFile(this.#record, "utf8").catch(() => "{}");
    return recordSchema.parse(JSON.parse(text));
  }

  async #write(record: Record<string, string>): Promise<void> {
    await mkdir(join(this.#record, ".."), { recursive: true, mode: 0o711 });
    await writeFile(`${this.#record}.new`, JSON.stringify(record));
    await rename(`${this.#record}.new`, this.#record);
  }
}

async function othersForward(): Promise<boolean> {
  const root = "/sys/class/net";
  for (const device of await readdir(root)) {
    const files = await readdir(join(root, device)).catch((): string[] => []);
    if (files.includes("bridge")) return true;
    const alias = await readFile(join(root, device, "ifalias"), "utf8").catch(() => "");
    if (alias.startsWith(uplinkAliasPrefix)) return true;
  }
  return false;
}
