/** A daemon with guests behind load balancers, and clients of them on loopback. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";
import { join } from "node:path";
import type { JsonObject } from "../src/core/json.ts";
import { run } from "../src/host/run.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { type LoadBalancer, loadBalancerKind } from "../src/kinds/load-balancer.ts";
import { TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

export const project = "default";

export interface Answer {
  status: number;
  text: string;
  cookies: string[];
  /** Of the certificate that answered: SHA-256, hexadecimal with colons. */
  fingerprint: string | undefined;
}

export interface AskOptions {
  path?: string;
  headers?: Record<string, string>;
  tls?: { ca: string; servername: string };
  agent?: Agent;
}

export class BalancerScene {
  readonly daemon: TestDaemon;

  private constructor(daemon: TestDaemon) {
    this.daemon = daemon;
  }

  static async create(): Promise<BalancerScene> {
    const daemon = await TestDaemon.create();
    await daemon.start();
    await daemon.ok(["image", "import", "tiny", await tinyImage()]);
    return new BalancerScene(daemon);
  }

  async createInstance(name: string, network = "default", more: JsonObject = {}): Promise<void> {
    const spec = {
      type: "container",
      image: "tiny",
      memoryMib: 64,
      diskMib: 128,
      network,
      services: [{ name: "http", port: 80 }],
      ...more,
    };
    await this.daemon.client.create(instanceKind, { project, name, spec });
  }

  async untilReady(...names: string[]): Promise<void> {
    await until(
      `${names.join(", ")} are ready`,
      async () => {
        const ready = (await this.daemon.instances(project)).filter(({ status }) =>
          status.conditions.some((one) => one.type === "Ready" && one.status === "true"),
        );
        return names.every((name) => ready.some(({ metadata }) => metadata.name === name));
      },
      120_000,
    );
  }

  /** A program that answers at /cgi-bin/NAME of an instance. */
  async addProgram(instance: string, name: string, text: string): Promise<void> {
    const path = `/run/www/cgi-bin/${name}`;
    const script = `mkdir -p /run/www/cgi-bin; cat >${path}; chmod 755 ${path}`;
    await this.daemon.ok(["exec", instance, "--", "sh", "-c", script], { input: text });
  }

  async createBalancer(name: string, spec: JsonObject): Promise<LoadBalancer> {
    await this.daemon.client.create(loadBalancerKind, { project, name, spec: { targetPort: 80, ...spec } });
    return await this.untilActive(name);
  }

  async change(name: string, spec: JsonObject): Promise<LoadBalancer> {
    await this.daemon.client.patch(loadBalancerKind, { project, name }, { spec });
    return await this.untilActive(name);
  }

  async balancer(name: string): Promise<LoadBalancer> {
    return await this.daemon.client.require(loadBalancerKind, { project, name });
  }

  async untilActive(name: string): Promise<LoadBalancer> {
    let last: LoadBalancer | undefined;
    await until(
      `${name} is active`,
      async () => {
        last = await this.balancer(name);
        const { status, metadata } = last;
        return status.state === "active" && status.observedGeneration === metadata.generation;
      },
      30_000,
    );
    return last as LoadBalancer;
  }

  /** By name of the instance; nothing else is behind it any more. */
  async untilServers(name: string, states: Record<string, string>): Promise<void> {
    const wanted = JSON.stringify(Object.entries(states).sort());
    await until(
      `the servers of ${name} are ${wanted}`,
      async () => {
        const { status } = await this.balancer(name);
        const seen = status.targets.map((target) => [target.name, status.servers[target.uid]?.state]);
        // Others that it told of are gone from HAProxy once they are gone from here.
        const current = Object.keys(status.servers).length === seen.length;
        return current && status.state === "active" && JSON.stringify(seen.sort()) === wanted;
      },
      30_000,
    );
  }

  async delete(name: string): Promise<void> {
    await this.daemon.client.delete(loadBalancerKind, { project, name });
    await until(
      `${name} is gone`,
      async () => !(await this.daemon.client.get(loadBalancerKind, { project, name })),
      20_000,
    );
  }
}

/** One request on loopback. Rejects when there is no answer. */
export function ask(
  port: number,
  { path = "/", headers = {}, tls, agent }: AskOptions = {},
): Promise<Answer> {
  const options = {
    host: "127.0.0.1",
    port,
    path,
    headers: { host: "www.example.test", ...headers },
    ...(tls ? { ...tls, agent: agent ?? new HttpsAgent() } : { agent: agent ?? new Agent() }),
  };
  return new Promise((resolve, reject) => {
    const sent = (tls ? requestHttps : request)(options, (response) => {
      const socket = response.socket as unknown as { getPeerX509Certificate?(): { fingerprint256: string } };
      const fingerprint = socket.getPeerX509Certificate?.()?.fingerprint256;
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("error", reject);
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          text: text.trim(),
          cookies: response.headers["set-cookie"] ?? [],
          fingerprint,
        }),
      );
    });
    sent.on("error", reject);
    sent.end();
  });
}

/** Host name of the instance that answered. */
export function answerer({ text }: Answer): string {
  return text.split(".", 1)[0] ?? "";
}

export async function answerers(port: number, count: number, options: AskOptions = {}): Promise<string[]> {
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) seen.add(answerer(await ask(port, options)));
  return [...seen].sort();
}

/** GET / over HTTP/2, by ALPN or, without TLS, with prior knowledge. */
export async function askHttp2(url: string, ca?: string): Promise<{ status: number; text: string }> {
  const session = connectHttp2(url, ca === undefined ? {} : { ca, servername: "www.example.test" });
  try {
    const stream = session.request({ ":path": "/", ":authority": "www.example.test" });
    const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
    let text = "";
    stream.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
    await once(stream, "end");
    return { status: Number(headers[":status"]), text: text.trim() };
  } finally {
    session.close();
  }
}

export interface Load {
  requests: number;
  /** What went wrong, a few. */
  failures: string[];
}

/** Asks without a pause, over so many connections that stay open, until it is stopped. */
export function startLoad(port: number, connections: number, options: AskOptions = {}): () => Promise<Load> {
  const load: Load = { requests: 0, failures: [] };
  let running = true;
  const loops = Array.from({ length: connections }, async () => {
    const agent = options.tls ? undefined : new Agent({ keepAlive: true, maxSockets: 1 });
    while (running) {
      try {
        const { status } = await ask(port, { ...options, ...(agent ? { agent } : {}) });
        if (status !== 200) load.failures.push(`status ${status}`);
      } catch (error) {
        load.failures.push(String(error));
      }
      load.requests++;
    }
    agent?.destroy();
  });
  return async () => {
    running = false;
    await Promise.all(loops);
    return { ...load, failures: load.failures.slice(0, 5) };
  };
}

export interface OwnCertificate {
  certificate: string;
  privateKey: string;
}

/** Signed by itself: it is its own authority. */
export async function ownCertificate(
  directory: string,
  name: string,
  otherNames: readonly string[] = [],
): Promise<OwnCertificate> {
  const [key, file] = [join(directory, `${name}.key`), join(directory, `${name}.pem`)];
  const algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const others = otherNames.map((other) => `,DNS:${other}`).join("");
  const names = `subjectAltName=DNS:${name},DNS:localhost,IP:127.0.0.1${others}`;
  await run("openssl", [
    ...["req", "-x509", ...algorithm, "-keyout", key, "-out", file, "-days", "30"],
    ...["-subj", `/CN=${name}`, "-addext", names],
  ]);
  return { certificate: await readFile(file, "utf8"), privateKey: await readFile(key, "utf8") };
}

const directoryPort = 14_000;
const managementPort = 15_000;
const dnsPort = 18_053;

export interface Authority {
  directory: string;
  /** What its own HTTPS is checked with. */
  authorities: string;
  stop(): Promise<void>;
}

/** Debian's pebble, which asks all domains at one port of loopback. Certificates live for so many seconds. */
export async function startAuthority(
  directory: string,
  httpPort: number,
  lifeSeconds: number,
): Promise<Authority> {
  await mkdir(directory, { recursive: true });
  const own = await ownCertificate(directory, "localhost");
  const config = {
    pebble: {
      listenAddress: `127.0.0.1:${directoryPort}`,
      managementListenAddress: `127.0.0.1:${managementPort}`,
      certificate: join(directory, "localhost.pem"),
      privateKey: join(directory, "localhost.key"),
      httpPort,
      tlsPort: 18_444,
      ocspResponderURL: "",
      externalAccountBindingRequired: false,
      certificateValidityPeriod: lifeSeconds,
    },
  };
  await writeFile(join(directory, "pebble.json"), JSON.stringify(config));
  const env = { ...process.env, PEBBLE_VA_NOSLEEP: "1" };
  const dns = spawn(
    "pebble-challtestsrv",
    [
      "-defaultIPv4",
      "127.0.0.1",
      "-defaultIPv6",
      "",
      "-dns01",
      `127.0.0.1:${dnsPort}`,
      "-http01",
      "",
      "-https01",
      "",
      "-tlsalpn01",
      "",
      "-management",
      "127.0.0.1:18055",
    ],
    { stdio: "ignore" },
  );
  const pebble = spawn(
    "pebble",
    ["-config", join(directory, "pebble.json"), "-dnsserver", `127.0.0.1:${dnsPort}`],
    { stdio: "ignore", env },
  );
  const url = `https://localhost:${directoryPort}/dir`;
  const tls = { ca: own.certificate, servername: "localhost" };
  await until(
    "pebble answers",
    () =>
      ask(directoryPort, { path: "/dir", tls }).then(
        ({ status }) => status === 200,
        () => false,
      ),
    10_000,
  );
  return {
    directory: url,
    authorities: own.certificate,
    async stop() {
      const ended = [dns, pebble].map((child) => once(child, "exit"));
      dns.kill();
      pebble.kill();
      await Promise.all(ended);
    },
  };
}
