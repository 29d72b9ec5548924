/**
 * A Docker Engine of a test's own: its data, sockets and processes below one directory, no bridge and no firewall rules,
 * so that nothing of the host changes and no other Engine is met. Debian's docker.io has it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { access, mkdir, readdir, rm, rmdir, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { basename, dirname, join } from "node:path";
import { StrataError } from "../src/core/errors.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import { run } from "../src/host/run.ts";

const program = "/usr/sbin/dockerd";
const startTimeoutMs = 60_000;
const stopTimeoutMs = 60_000;

export interface EngineAnswer {
  status: number;
  body: unknown;
}

export class TestEngine {
  readonly dir: string;
  readonly socketPath: string;
  readonly #options: readonly string[];
  /** Control group of its containers. */
  readonly #group: string;
  #process: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  private constructor(dir: string, options: readonly string[]) {
    this.dir = dir;
    this.socketPath = join(dir, "docker.sock");
    this.#options = options;
    this.#group = `engine-${basename(dirname(dir))}`;
  }

  /** `dir` is made here, and removed with `stop`. */
  static async start(dir: string, options: readonly string[] = []): Promise<TestEngine> {
    await access(program).catch((cause) => {
      throw new StrataError("Unavailable", `${program} is missing; \`sudo ./strata test\` installs it`, {
        cause,
      });
    });
    await mkdir(dir, { recursive: true, mode: 0o711 });
    await writeFile(join(dir, "daemon.json"), "{}"); // not the host's
    const engine = new TestEngine(dir, options);
    await engine.restart();
    return engine;
  }

  /** Starts it, after ending the one that runs. */
  async restart(): Promise<void> {
    await this.#end();
    const path = (name: string) => join(this.dir, name);
    const args = [
      ...["--data-root", path("data"), "--exec-root", path("exec"), "--pidfile", path("pid")],
      ...["--host", `unix://${this.socketPath}`, "--config-file", path("daemon.json")],
      ...["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", `/${this.#group}`],
      ...["--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=warn"],
      ...this.#options,
    ];
    // When the test is killed, the Engine is asked to end, which takes its guests with it.
    const child = spawn("setpriv", ["--pdeathsig", "TERM", program, ...args], {
      stdio: ["ignore", "ignore", "pipe"],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C" },
    });
    let log = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-4_000);
    });
    let running = true;
    this.#process = child;
    this.#ended = new Promise((resolve) => {
      child.once("close", () => {
        running = false;
        resolve();
      });
    });
    await until(
      async () => {
        if (!running) throw new Error(`dockerd ended: ${log}`);
        return (await this.get("/_ping").catch(() => undefined))?.status === 200;
      },
      startTimeoutMs,
      "the Docker Engine",
    );
  }

  /** Ends it and all containers, and removes what it made. */
  async stop(): Promise<void> {
    await this.#end();
    const { stdout } = await run("findmnt", ["-rn", "-o", "TARGET"], { expected: [0, 1] });
    for (const target of stdout
      .split("\n")
      .filter((line) => line.startsWith(`${this.dir}/`))
      .reverse()) {
      await run("umount", [target], { expected: [0, 1, 32] });
    }
    await removeGroups(this.#group);
    await rm(this.dir, { recursive: true, force: true });
  }

  get(path: string): Promise<EngineAnswer> {
    return this.send("GET", path);
  }

  /** One call to the Engine, past Strata. */
  send(
    method: string,
    path: string,
    body?: unknown,
    contentType = "application/json",
  ): Promise<EngineAnswer> {
    const data = Buffer.isBuffer(body) ? body : Buffer.from(body === undefined ? "" : JSON.stringify(body));
    return new Promise((resolve, reject) => {
      const headers = { "content-type": contentType, "content-length": data.length };
      const sent = request({ socketPath: this.socketPath, method, path, headers }, async (response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk);
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, body: parsed(text) });
      });
      sent.once("error", reject);
      sent.end(data);
    });
  }

  async #end(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    this.#process = undefined;
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
    await this.#ended;
    clearTimeout(timer);
  }
}

/** In every hierarchy; the Engine leaves its own, empty. */
async function removeGroups(name: string): Promise<void> {
  const root = "/sys/fs/cgroup";
  const mounts = (await readdir(root, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  for (const path of [join(root, name), ...mounts.map((mount) => join(root, mount.name, name))]) {
    await rmdir(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
