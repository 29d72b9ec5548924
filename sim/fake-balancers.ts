/** Balancers without HAProxy: what is asked of them is so at once. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalJson, type Json } from "../src/core/json.ts";
import type {
  BalancerRequest,
  Balancers,
  SeenBalancer,
  SeenServer,
  ServerRequest,
} from "../src/host/balancers/balancers.ts";

interface Running {
  structure: string;
  servers: Map<string, SeenServer>;
  challenges: ReadonlyMap<string, string>;
}

export class FakeBalancers implements Balancers {
  readonly running = new Map<string, Running>();
  /** Starts and reloads. */
  ensures = 0;
  #directory: string | undefined;
  readonly #listeners = new Set<(uid: string) => void>();

  structureOf({ spec }: BalancerRequest): string {
    const { group: _group, instances: _instances, targetPort: _port, ...structure } = spec;
    return createHash("sha256")
      .update(canonicalJson(structure as unknown as Json))
      .digest("hex");
  }

  serverName({ uid, address, port, source }: ServerRequest): string {
    return `${uid}.${address}-${port}-${source}`;
  }

  async observe(uid: string): Promise<SeenBalancer | undefined> {
    const own = this.running.get(uid);
    return own && { ...own, servers: [...own.servers.values()], certificates: new Map() };
  }

  async ensure(request: BalancerRequest): Promise<void> {
    this.ensures++;
    const servers = new Map<string, SeenServer>();
    this.running.set(request.uid, {
      structure: this.structureOf(request),
      servers,
      challenges: request.challenges,
    });
    for (const server of request.servers) await this.addServer(request, server);
  }

  async addServer({ uid }: BalancerRequest, server: ServerRequest): Promise<void> {
    const name = this.serverName(server);
    const state = server.draining ? "maintenance" : "up";
    this.running.get(uid)?.servers.set(name, { name, uid: server.uid, state, sessions: 0, connections: 0 });
  }

  async drainServer(uid: string, name: string): Promise<void> {
    this.#set(uid, name, { state: "maintenance" });
  }

  async resumeServer(uid: string, name: string): Promise<void> {
    this.#set(uid, name, { state: "up" });
  }

  async removeServer(uid: string, name: string): Promise<boolean> {
    return this.running.get(uid)?.servers.delete(name) ?? true;
  }

  async setCertificate(): Promise<void> {}

  async setChallenges(uid: string, challenges: ReadonlyMap<string, string>): Promise<void> {
    const own = this.running.get(uid);
    if (own) own.challenges = challenges;
  }

  async statistics(): Promise<[]> {
    return [];
  }

  async remove(uid: string): Promise<void> {
    this.running.delete(uid);
  }

  async list(): Promise<string[]> {
    return [...this.running.keys()];
  }

  async *events(signal: AbortSignal): AsyncGenerator<string> {
    const ended: string[] = [];
    let wake = () => {};
    const listener = (uid: string) => {
      ended.push(uid);
      wake();
    };
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => wake(), { once: true });
    while (!signal.aborted) {
      const uid = ended.shift();
      if (uid !== undefined) yield uid;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
          if (signal.aborted) resolve();
        });
    }
    this.#listeners.delete(listener);
  }

  channels(uid: string): { holder: string; log: string } {
    this.#directory ??= mkdtempSync(join(tmpdir(), "strata-fake-"));
    return { holder: join(this.#directory, `${uid}.holder`), log: join(this.#directory, `${uid}.log`) };
  }

  logPath(uid: string): string {
    return join(this.#directory ?? tmpdir(), `${uid}.access`);
  }

  async placeholder(): Promise<string> {
    return "";
  }

  close(): void {
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true });
    this.#directory = undefined;
  }

  /** So many requests are under way at every server of that instance. */
  setSessions(uid: string, instance: string, sessions: number): void {
    for (const server of this.running.get(uid)?.servers.values() ?? []) {
      if (server.uid === instance) this.#set(uid, server.name, { sessions });
    }
  }

  /** As if the process was killed. */
  crash(uid: string): void {
    this.running.delete(uid);
    for (const listener of this.#listeners) listener(uid);
  }

  #set(uid: string, name: string, change: Partial<SeenServer>): void {
    const servers = this.running.get(uid)?.servers;
    const server = servers?.get(name);
    if (server) servers?.set(name, { ...server, ...change });
  }
}
