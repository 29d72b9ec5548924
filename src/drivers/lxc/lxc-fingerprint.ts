/** What LXC can do on this host, proven by running a container that has nothing but the host's own programs. */
import { chown, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import type { HostConfig } from "../../host/host-config.ts";
import { run } from "../../host/run.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import { lxcConfig } from "./lxc-config.ts";
import { ensureReachable, type LxcHost } from "./lxc-host.ts";

export interface FingerprintOptions {
  host: HostConfig;
  cgroups: Cgroups;
  lxcPath: string;
  openHost(): Promise<LxcHost>;
  signal: AbortSignal;
}

const probeTimeoutMs = 15_000;
/** Each systemd takes about five, and all containers together have as many as the host's root may have. */
const inotifyFile = "/proc/sys/fs/inotify/max_user_instances";

export async function fingerprintLxc(options: FingerprintOptions): Promise<Fingerprint> {
  options.signal.throwIfAborted();
  const nothing = { version: "", types: [], abilities: [], facts: {} };
  if (process.getuid?.() !== 0) {
    return { available: false, message: "containers need a daemon that runs as root", ...nothing };
  }
  try {
    const host = await options.openHost();
    const version = await run(host.lxcStart, ["--version"], { signal: options.signal });
    await probe(options, host);
    return {
      available: true,
      message: "",
      version: version.stdout.trim().slice(0, 200),
      types: ["container"],
      abilities: ["exec", "exec-tty", "console", "cards", "resize", "volumes", "drift", "snapshots"],
      facts: {
        cgroups: options.cgroups.layout,
        apparmor: host.apparmorProfile === "unconfined" ? "no" : "yes",
        lxcfs: host.lxcfs ? "yes" : "no",
        seccomp: host.seccompProfile === undefined ? "no" : "yes",
        "inotify instances": (await readFile(inotifyFile, "utf8").catch(() => "unknown")).trim(),
      },
    };
  } catch (error) {
    if (options.signal.aborted) throw options.signal.reason;
    const { message } = error instanceof StrataError ? error : new Error(describeError(error));
    return { available: false, message: message.slice(0, 1024), ...nothing };
  }
}

/** @throws Unavailable with LXC's reason. */
async function probe(options: FingerprintOptions, host: LxcHost): Promise<void> {
  const { host: config, cgroups, lxcPath, signal } = options;
  const dir = await mkdtemp(join(lxcPath, ".probe-"));
  const group = `${config.namespace}.monitors/${dir.slice(dir.lastIndexOf("/") + 2)}`;
  try {
    await makeRoot(dir, config.idBase);
    await ensureReachable(dir, config.stateDir, config.idBase);
    await cgroups.ensure(group, { memoryMib: 64, processes: 16 });
    await writeFile(join(dir, "config"), probeConfig(dir, group, config.idBase, host));
    const name = dir.slice(lxcPath.length + 1);
    const args = ["-F", "-C", "-P", lxcPath, "-n", name, "-l", "INFO", "-o", join(dir, "log")];
    await run(host.lxcStart, args, {
      env: { PATH: host.monitorPath },
      expected: [0, 1],
      timeoutMs: probeTimeoutMs,
      signal,
    });
    const log = await readFile(join(dir, "log"), "utf8").catch(() => "");
    // LXC's exit status is 0 for an init that failed as well.
    if (/ Started "/.test(log) && !/> ended on /.test(log)) return;
    const reason = / ERROR .*? - (?:[^-]* - )?(.*)/.exec(log)?.[1] ?? "LXC gave no reason";
    throw new StrataError("Unavailable", `a container for testing does not run here: ${reason}`, {
      detail: log.slice(-2_000),
    });
  } finally {
    await cgroups.kill(group);
    await cgroups.remove(group);
    await rm(join("/run/lxc/lock", lxcPath, `.${dir.slice(lxcPath.length + 1)}`), { force: true });
    await rm(dir, { recursive: true, force: true });
  }
}

async function makeRoot(dir: string, idBase: number): Promise<void> {
  const root = join(dir, "root");
  await mkdir(root, { mode: 0o755 });
  for (const name of ["usr", "dev", "proc", "sys", "etc", "seed"]) await mkdir(join(root, name));
  for (const name of ["bin", "sbin", "lib", "lib64"]) await symlink(`usr/${name}`, join(root, name));
  await chown(root, idBase, idBase);
  await mkdir(join(dir, "seed"));
}

function probeConfig(dir: string, group: string, idBase: number, host: LxcHost): string {
  const text = lxcConfig(
    {
      uid: "0000000000000000" as Uid,
      title: "probe",
      hostname: "probe",
      type: "container",
      cpus: 1,
      memoryMib: 64,
      maxProcesses: 16,
      root: { type: "tree", path: join(dir, "root"), idBase, idCount: 65_536 },
      nics: [],
      seed: { metaData: "", userData: "", networkConfig: "" },
      config: {},
    },
    {
      seedDir: join(dir, "seed"),
      consoleLog: join(dir, "console"),
      guestGroup: `${group}/guest`,
      monitorGroup: group,
      plugCards: { script: host.plugCards, cardsDir: dir, groupDirs: [] },
      apparmorProfile: host.apparmorProfile,
      lxcfs: host.lxcfs,
      maxOpenFiles: host.maxOpenFiles,
      ...(host.seccompProfile === undefined ? {} : { seccompProfile: host.seccompProfile }),
    },
  );
  return [
    text.replace("var/lib/cloud/seed/nocloud", "seed"),
    "lxc.mount.entry = /usr usr none bind,ro 0 0",
    "lxc.init.cmd = /bin/true",
    "",
  ].join("\n");
}
