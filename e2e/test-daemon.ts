/**
 * A daemon of a test's own: its namespace, directories and address range are its own, so it never meets a user's daemon
 * or another test's. Images are shared by all tests of a machine (STRATA_TEST_IMAGE_DIR), so that one build serves the
 * whole run.
 */
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findDaemon, startDaemon, stopDaemon } from "../src/bin/daemon-process.ts";
import { readSettings, type Settings } from "../src/bin/settings.ts";
import type { Client } from "../src/client/client.ts";
import { createHttpClient } from "../src/client/http-client.ts";
import { systemClock } from "../src/core/clock.ts";
import { StrataError } from "../src/core/errors.ts";
import { type Random, randomInt } from "../src/core/random.ts";
import { groupKind } from "../src/kinds/group.ts";
import { hostKind } from "../src/kinds/host.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import type { Kind } from "../src/kinds/kind.ts";
import { projectKind } from "../src/kinds/project.ts";
import { isRouted } from "./routes.ts";

const main = fileURLToPath(new URL("../src/bin/strata.ts", import.meta.url));

export const testImageDir = process.env.STRATA_TEST_IMAGE_DIR ?? "/var/tmp/strata-test-images";

export interface CliResult {
  status: number;
  stdout: string;
  stderr: string;
}

export class TestDaemon {
  readonly settings: Settings;
  readonly client: Client;
  readonly #directory: string;
  readonly #env: Readonly<Record<string, string>>;

  private constructor(directory: string, env: Record<string, string>) {
    this.#directory = directory;
    this.#env = env;
    this.settings = readSettings({ STRATA_DIR: directory, STRATA_IMAGE_DIR: testImageDir, ...env });
    this.client = createHttpClient({ socketPath: this.settings.socketPath });
  }

  /** Not started yet. `env` adds STRATA_ variables; `parent` is where its directory is made. */
  static async create(env: Record<string, string> = {}, parent = "/var/tmp"): Promise<TestDaemon> {
    await mkdir(testImageDir, { recursive: true, mode: 0o711 });
    return new TestDaemon(await mkdtemp(join(parent, "strata-e2e-")), env);
  }

  /** What its processes carry in their command line, control group or environment. */
  get marks(): string[] {
    return [this.#directory, `/${this.settings.namespace}/`];
  }

  /** A scratch directory that goes away with the daemon. */
  async scratch(name: string): Promise<string> {
    const path = join(this.#directory, name);
    await mkdir(path, { recursive: true });
    return path;
  }

  async writeFile(name: string, text: string): Promise<string> {
    const path = join(await this.scratch("files"), name);
    await writeFile(path, text);
    return path;
  }

  async start(): Promise<void> {
    await startDaemon(this.settings, systemClock, AbortSignal.timeout(60_000));
  }

  async stop(): Promise<void> {
    await stopDaemon(this.settings, systemClock);
  }

  pid(): number | undefined {
    return findDaemon(this.settings)?.pid;
  }

  /** kill -9, and waits until the process is gone. False when none ran. */
  async kill(): Promise<boolean> {
    const pid = this.pid();
    if (pid === undefined) return false;
    process.kill(pid, "SIGKILL");
    await until(
      `daemon ${pid} is gone`,
      async () => this.pid() === undefined || (await isZombie(pid)),
      10_000,
      2,
    );
    return true;
  }

  /** Kills it at a moment within `withinMs` of the request, and starts it again. */
  async killWithin(random: Random, withinMs: number, request: () => Promise<unknown>): Promise<void> {
    const moment = randomInt(random, withinMs);
    const asked = request().catch(() => {});
    await systemClock.sleep(moment);
    await this.kill();
    await this.start();
    await asked;
  }

  /** The command line, as a user calls it. Never rejects for an exit status. */
  strata(
    args: readonly string[],
    options: { input?: string; timeoutMs?: number; env?: Record<string, string> } = {},
  ) {
    return new Promise<CliResult>((resolve, reject) => {
      const child = spawn(process.execPath, [main, ...args], {
        env: {
          ...process.env,
          STRATA_DIR: this.#directory,
          STRATA_IMAGE_DIR: testImageDir,
          NO_COLOR: "1",
          ...this.#env,
          ...options.env,
        },
        stdio: ["pipe", "pipe", "pipe"],
      });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      const cancel = systemClock.after(options.timeoutMs ?? 600_000, () => child.kill("SIGKILL"));
      child.on("error", reject);
      child.on("close", (code) => {
        cancel();
        resolve({ status: code ?? 128, stdout, stderr });
      });
      child.stdin.on("error", () => {});
      child.stdin.end(options.input);
    });
  }

  /** The same, and the exit status must be 0. */
  async ok(args: readonly string[], options: Parameters<TestDaemon["strata"]>[1] = {}): Promise<CliResult> {
    const result = await this.strata(args, options);
    if (result.status !== 0) {
      const detail = `${result.stdout}${result.stderr}`.slice(-4000);
      throw new StrataError("Internal", `strata ${args.join(" ")} ended with ${result.status}: ${detail}`);
    }
    return result;
  }

  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse((await this.ok([...args, "--json"])).stdout) as T;
  }

  async instances(project?: string): Promise<Instance[]> {
    return (await this.client.list(instanceKind, project === undefined ? {} : { project })).items;
  }

  async log(): Promise<string> {
    return await readFile(this.settings.logFile, "utf8").catch(() => "");
  }

  /** Deletes everything in it, ends it and removes its directories. */
  async dispose(): Promise<void> {
    if (this.pid() === undefined) await this.start();
    const { items } = await this.client.list(projectKind, {});
    for (const { metadata } of items) {
      // Groups first: they would make new members.
      for (const group of (await this.client.list(groupKind, { project: metadata.name })).items) {
        const { project = "", name } = group.metadata;
        await this.client.delete(groupKind, { project, name });
      }
      for (const instance of await this.instances(metadata.name)) {
        if (instance.spec.protected) {
          await this.client.patch(instanceKind, ref(instance), { spec: { protected: false } });
        }
        await this.client.delete(instanceKind, ref(instance)).catch(() => {});
      }
    }
    await until("all instances are gone", async () => (await this.instances()).length === 0, 120_000, 50);
    await this.ok(["uninstall", "--yes", "--force", "--keep-packages"]);
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** Lets it have more instances of one processor each than a small host promises by itself. */
export async function allowMany({ client }: TestDaemon): Promise<void> {
  for (const { metadata } of (await client.list(hostKind, {})).items) {
    await client.patch(hostKind, { name: metadata.name }, { spec: { cpuOvercommit: 1000 } });
  }
}

/** Deletes all that a project has of these kinds, one kind after the other; volumes but for roots, which go with their instances. */
export async function removeAll(daemon: TestDaemon, project: string, kinds: readonly Kind[]): Promise<void> {
  if (daemon.pid() === undefined) await daemon.start();
  for (const kind of kinds) {
    const all = async () => {
      const { items } = await daemon.client.list(kind, { project });
      return items.filter(({ spec }) => (spec as { role?: string }).role !== "root");
    };
    const none = async () => {
      const left = await all();
      for (const { metadata } of left) {
        if (metadata.deletedAt !== undefined) continue;
        await daemon.client.delete(kind, { project, name: metadata.name }).catch(() => {}); // in use: once more
      }
      return left.length === 0;
    };
    await until(`all ${kind.plural} are gone`, none, 120_000, 100);
  }
}

export function ref(instance: Instance): { project: string; name: string } {
  return { project: instance.metadata.project ?? "default", name: instance.metadata.name };
}

export function addressOf(instance: Instance): string {
  const address = instance.status.nic?.ipAddress;
  if (address === undefined) throw new StrataError("Internal", `${instance.metadata.name} has no address`);
  return address;
}

/** Waits until the condition holds. @throws Timeout naming what was waited for. */
export async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
  limitMs: number,
  everyMs = 20,
): Promise<void> {
  const end = systemClock.monotonicMs() + limitMs;
  for (;;) {
    if (await condition()) return;
    if (systemClock.monotonicMs() > end) {
      throw new StrataError("Timeout", `waited ${limitMs} ms in vain until ${what}`);
    }
    await systemClock.sleep(everyMs);
  }
}

/** GET, as text with status 0 when nobody answers or no network of ours leads there. */
export async function httpGet(url: string, timeoutMs = 2_000): Promise<{ status: number; text: string }> {
  const { hostname } = new URL(url);
  if (!hostname.startsWith("127.") && !isRouted(hostname)) return { status: 0, text: "" };
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) });
    return { status: response.status, text: await response.text() };
  } catch {
    return { status: 0, text: "" };
  }
}

async function isZombie(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ") Z");
  return stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
}
