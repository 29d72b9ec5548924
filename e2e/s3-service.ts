/**
 * An S3 service of a test's own, on loopback: OpenStack Swift with its S3 API, which checks signatures as a service on the Internet
 * does, behind HAProxy for TLS. (Without TLS, restic's client signs what it sends piece by piece, which Swift 2.30 does not
 * know.) One process for each of its parts, one copy of everything.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { run } from "../src/host/run.ts";
import { until } from "./test-daemon.ts";

const parts = ["account", "container", "object"] as const;
type Part = (typeof parts)[number] | "proxy" | "tls";

export class S3Service {
  readonly endpoint: string;
  /** File with the certificate that it is trusted by. */
  readonly authorities: string;
  readonly accessKeyId = "school:backup";
  readonly secretAccessKey = "a-secret-of-the-tests-own";
  readonly region = "us-east-1";
  readonly #directory: string;
  readonly #ports: ReadonlyMap<Part, number>;
  readonly #processes = new Map<Part, ChildProcess>();
  #said = "";

  private constructor(directory: string, ports: ReadonlyMap<Part, number>) {
    this.#directory = directory;
    this.#ports = ports;
    // 127.0.0.1, written so that programs do not leave out their proxy.
    this.endpoint = `https://127.1:${ports.get("tls")}`;
    this.authorities = join(directory, "certificate.pem");
  }

  static async start(): Promise<S3Service> {
    const ports = await freePorts();
    const service = new S3Service(await mkdtemp("/var/tmp/strata-s3-"), ports);
    await service.#configure();
    for (const part of [...parts, "proxy"] as const)
      service.#spawn(part, `swift-${part}-server`, `${part}.conf`, "-v");
    service.#spawn("tls", "haproxy", "-db", "-f", "tls.conf");
    await service.#answers();
    return service;
  }

  /** Nobody answers there from then on. */
  async stop(): Promise<void> {
    for (const [part, child] of this.#processes) {
      this.#processes.delete(part);
      if (child.exitCode === null && child.kill("SIGKILL")) await once(child, "exit");
    }
  }

  async dispose(): Promise<void> {
    await this.stop();
    await rm(this.#directory, { recursive: true });
  }

  async #configure(): Promise<void> {
    const device = join(this.#directory, "devices", "d1");
    await mkdir(device, { recursive: true });
    await this.#certify();
    await this.#write("swift.conf", "[swift-hash]\nswift_hash_path_suffix = tests\n");
    for (const part of parts) {
      const builder = join(this.#directory, `${part}.builder`);
      const where = `r1z1-127.0.0.1:${this.#ports.get(part)}/d1`;
      for (const args of [["create", "4", "1", "1"], ["add", where, "1"], ["rebalance"]]) {
        await run("swift-ring-builder", [builder, ...args]);
      }
      const pipeline = `[pipeline:main]\npipeline = ${part}-server\n[app:${part}-server]\nuse = egg:swift#${part}\n`;
      await this.#write(
        `${part}.conf`,
        `${this.#common(part)}devices = ${join(this.#directory, "devices")}\n${pipeline}`,
      );
    }
    const [account = "", user = ""] = this.accessKeyId.split(":");
    const filters = {
      catch_errors: "egg:swift#catch_errors",
      // It must be there; nobody answers, so nothing is remembered.
      cache: "egg:swift#memcache\nmemcache_servers = 127.0.0.1:9",
      s3api: `egg:swift#s3api\nlocation = ${this.region}`,
      tempauth: `egg:swift#tempauth\nuser_${account}_${user} = ${this.secretAccessKey} .admin`,
      slo: "egg:swift#slo",
    };
    const sections = Object.entries(filters).map(([name, use]) => `[filter:${name}]\nuse = ${use}\n`);
    const pipeline = `[pipeline:main]\npipeline = ${Object.keys(filters).join(" ")} proxy-server\n`;
    const app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n";
    await this.#write("proxy.conf", `${this.#common("proxy")}${pipeline}${app}${sections.join("")}`);
  }

  async #certify(): Promise<void> {
    const kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const names = ["-subj", "/CN=s3", "-addext", "subjectAltName=DNS:127.1,IP:127.0.0.1", "-days", "2"];
    const key = join(this.#directory, "key.pem");
    await run("openssl", [...kind, ...names, "-keyout", key, "-out", this.authorities]);
    const both = join(this.#directory, "both.pem");
    await writeFile(both, `${await readFile(this.authorities, "utf8")}${await readFile(key, "utf8")}`);
    const lines = [
      "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s",
      `frontend s3\n bind 127.0.0.1:${this.#ports.get("tls")} ssl crt ${both}\n default_backend swift`,
      `backend swift\n server swift 127.0.0.1:${this.#ports.get("proxy")}\n`,
    ];
    await this.#write("tls.conf", lines.join("\n"));
  }

  #common(part: Part): string {
    const lines = [
      "[DEFAULT]",
      "bind_ip = 127.0.0.1",
      `bind_port = ${this.#ports.get(part)}`,
      "workers = 0",
      "user = root",
      "mount_check = false",
      `swift_dir = ${this.#directory}`,
    ];
    return `${lines.join("\n")}\n`;
  }

  #write(name: string, text: string): Promise<void> {
    return writeFile(join(this.#directory, name), text);
  }

  #spawn(part: Part, ...command: string[]): void {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", ...command], {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: this.#directory,
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (bytes: Buffer) => {
        this.#said = `${this.#said}${bytes}`.slice(-8000);
      });
    }
    this.#processes.set(part, child);
  }

  async #answers(): Promise<void> {
    // Without a signature: that it is refused says that all of it is there.
    const url = `https://127.0.0.1:${this.#ports.get("tls")}/a-bucket`;
    const args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", this.authorities];
    const header = ["-H", "Authorization: AWS none:none"];
    const any = Array.from({ length: 100 }, (_, status) => status);
    const asked = () => run("curl", [...args, ...header, url], { expected: any });
    const answers = async () => (await asked()).stdout === "403";
    await until("the S3 service answers", answers, 60_000, 100).catch((cause) => {
      throw new Error(`Swift does not answer: ${this.#said}`, { cause });
    });
  }
}

async function freePorts(): Promise<Map<Part, number>> {
  const servers = ([...parts, "proxy", "tls"] as const).map((part) => [part, createServer()] as const);
  const found = new Map<Part, number>();
  for (const [part, server] of servers) {
    await once(server.listen(0, "127.0.0.1"), "listening");
    found.set(part, (server.address() as AddressInfo).port);
  }
  for (const [, server] of servers) {
    server.close();
    await once(server, "close");
  }
  return found;
}
