/**
 * The Docker Engine of this host over its Unix socket. One pool of connections; every call has a time limit, and every
 * failure becomes one error that names what was tried. dockerode is loaded with the first use, so that hosts without an
 * Engine do not pay for it.
 *
 * Only the Engine of this very host will do: guests' network cards are put into the containers' namespaces from here.
 */
import { access } from "node:fs/promises";
import type { Readable } from "node:stream";
import type Docker from "dockerode";
import { StrataError } from "../../core/errors.ts";
import { Agent } from "../../core/node-http.ts";

export type ContainerInfo = Docker.ContainerInspectInfo;
export type ContainerOptions = Docker.ContainerCreateOptions;
/** Label filters in the Engine's form: `{ label: ["a=b"] }`. */
export type Filters = Readonly<Record<string, readonly string[]>>;

/** Of the Engine's own account of itself. */
export interface EngineInfo {
  ServerVersion: string;
  /** Where its images are. */
  DockerRootDir: string;
  Driver: string;
  CgroupVersion?: string;
  CgroupDriver: string;
  LiveRestoreEnabled: boolean;
  SecurityOptions?: string[] | null;
  NCPU: number;
  /** In bytes; left out by engines that do not know. */
  MemTotal?: number;
}

const defaultSocket = "/var/run/docker.sock";
/** Connections that are kept for the next call. */
const maxIdleConnections = 8;
const callTimeoutMs = 60_000;
/** Layers are unpacked while they are sent, and only then is there an answer. */
export const importTimeoutMs = 30 * 60_000;

/** The Engine's socket: what is configured, or what DOCKER_HOST says. @throws Unsupported for an Engine elsewhere. */
export function engineSocket(configured: string | undefined, dockerHost: string | undefined): string {
  if (configured !== undefined) return configured;
  if (dockerHost === undefined || dockerHost === "") return defaultSocket;
  const path = /^unix:\/\/(\/.*)$/.exec(dockerHost)?.[1];
  if (path !== undefined) return path;
  throw new StrataError(
    "Unsupported",
    `DOCKER_HOST is ${JSON.stringify(dockerHost)}, but guests can only run on this host's own Docker Engine; set it to unix:///PATH or remove it`,
  );
}

interface CallOptions {
  signal?: AbortSignal | undefined;
  timeoutMs?: number;
  /** Answers that are no failure. */
  accept?: readonly number[];
}

export class Engine {
  readonly #socketPath: () => string;
  #docker: Promise<Docker> | undefined;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: maxIdleConnections });

  /** The path is asked for with the first call. */
  constructor(socketPath: () => string) {
    this.#socketPath = socketPath;
  }

  /**
   * One call. `accept` lists HTTP statuses that stand for undefined (304: nothing to do; 404: absent).
   * @throws NotFound, Conflict, Invalid, Unavailable as the Engine says; Timeout; the signal's reason.
   */
  async call<T>(
    what: string,
    send: (docker: Docker, abortSignal: AbortSignal) => Promise<T>,
    options: CallOptions = {},
  ): Promise<T | undefined> {
    const { signal, timeoutMs = callTimeoutMs } = options;
    signal?.throwIfAborted();
    const timeout = AbortSignal.timeout(timeoutMs);
    const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
    try {
      // Not all of dockerode's methods heed the signal.
      return await orAborted(send(await this.#open(), either), either);
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      if (options.accept?.includes(statusOf(cause) ?? 0)) return undefined;
      if (timeout.aborted) {
        throw new StrataError("Timeout", `the Docker Engine did not ${what} within ${timeoutMs / 1000} s`, {
          cause,
        });
      }
      throw this.#explain(what, cause);
    }
  }

  /** Like `call` for what always has an answer. */
  async ask<T>(
    what: string,
    send: (docker: Docker, abortSignal: AbortSignal) => Promise<T>,
    options: Omit<CallOptions, "accept"> = {},
  ): Promise<T> {
    return (await this.call(what, send, options)) as T;
  }

  /**
   * A response read as it comes, without a time limit: the signal ends it. dockerode's own methods take a response that
   * happens to be JSON apart.
   */
  async stream(
    what: string,
    path: string,
    query: Record<string, unknown>,
    signal: AbortSignal,
  ): Promise<Readable | undefined> {
    return await this.call(
      what,
      (docker) =>
        new Promise<Readable>((resolve, reject) => {
          const request = {
            path: `${path}?`,
            method: "GET",
            isStream: true,
            abortSignal: signal,
            options: query,
            statusCodes: { 200: true },
          };
          docker.modem.dial(request, (error: unknown, response: unknown) => {
            if (error) reject(error);
            else resolve(response as Readable);
          });
        }),
      { signal, accept: [404] },
    );
  }

  async info(signal: AbortSignal): Promise<EngineInfo> {
    const info = await this.ask("tell about itself", (docker) => docker.info(), { signal });
    return info as EngineInfo;
  }

  /** A container of any owner, by name or id. */
  inspect(name: string, signal?: AbortSignal): Promise<ContainerInfo | undefined> {
    return this.call(
      `look at container ${name}`,
      (docker, abortSignal) => docker.getContainer(name).inspect({ abortSignal }),
      { signal, accept: [404] },
    );
  }

  /** Containers in any state. */
  containers(filters: Filters): Promise<Docker.ContainerInfo[]> {
    return this.ask("list containers", (docker, abortSignal) =>
      docker.listContainers({ all: true, filters: toFilters(filters), abortSignal }),
    );
  }

  /** Kills it where it runs. Absent is success. */
  async removeContainer(id: string, signal: AbortSignal): Promise<void> {
    await this.call(
      `remove container ${id}`,
      (docker, abortSignal) => docker.getContainer(id).remove({ force: true, v: true, abortSignal }),
      { signal, accept: [404] },
    );
  }

  async #open(): Promise<Docker> {
    const socketPath = this.#socketPath();
    if (this.#docker === undefined) await access(socketPath);
    this.#docker ??= import("dockerode").then(({ default: Client }) => {
      // Without the explicit `undefined`, a host in DOCKER_HOST would win over the socket.
      const options = { socketPath, host: undefined, protocol: "http", agent: this.#agent };
      return new Client(options as object);
    });
    return await this.#docker;
  }

  #explain(what: string, cause: unknown): StrataError {
    if (cause instanceof StrataError) return cause;
    const status = statusOf(cause);
    if (status === undefined) {
      return new StrataError(
        "Unavailable",
        `cannot ${what}: no Docker Engine answers at ${this.#socketPath()} (package docker.io has one)`,
        { cause },
      );
    }
    const code =
      status === 404 ? "NotFound" : status === 409 ? "Conflict" : status === 400 ? "Invalid" : "Unavailable";
    return new StrataError(code, `the Docker Engine cannot ${what}: ${messageOf(cause)}`, { cause });
  }
}

export function toFilters(filters: Filters): string {
  return JSON.stringify(filters);
}

function statusOf(error: unknown): number | undefined {
  const status = (error as { statusCode?: unknown } | undefined)?.statusCode;
  return typeof status === "number" ? status : undefined;
}

/** The Engine's own words, without dockerode's frame around them. */
function messageOf(error: unknown): string {
  const { json, message } = error as { json?: { message?: unknown } | null; message?: unknown };
  const text = typeof json?.message === "string" ? json.message : String(message ?? "no reason given");
  return text
    .replace(/^\(HTTP code \d+\)[^-]*- /, "")
    .trim()
    .slice(0, 500);
}

async function orAborted<T>(sent: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  // It may have aborted while the client was loaded; then no event comes any more.
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([sent, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
    sent.catch(() => {});
    aborted.catch(() => {});
  }
}
