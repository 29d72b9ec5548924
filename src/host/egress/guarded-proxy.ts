/**
 * A proxy on loopback for one program that is given an address by a user: it connects to allowed addresses only, and to the
 * very address that it has looked at, so that a name which leads elsewhere the second time (DNS rebinding) leads nowhere.
 */
import { lookup } from "node:dns/promises";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import type { Duplex } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import { type IpRange, parseIp, parseRange } from "../../core/ip-range.ts";
import { createServer, request as httpRequest } from "../../core/node-http.ts";
import { type Random, systemRandom } from "../../core/random.ts";
import { isAllowedAddress } from "./allowed-addresses.ts";

/** All addresses of a name, in the order of preference. */
export type Resolve = (name: string) => Promise<readonly string[]>;

export interface GuardOptions {
  /** Beside the public Internet. */
  allowed: readonly IpRange[];
  /** The variable by which the operator allows more, for messages. */
  setting: string;
  resolve?: Resolve;
  random?: Random;
  /** Told of what it did not let through. */
  onRefusal?: (error: StrataError) => void;
}

const systemResolve: Resolve = async (name) =>
  (await lookup(name, { all: true })).map(({ address }) => address);

/** Hop-by-hop and this proxy's own; the rest is the program's business. */
const ownHeaders: ReadonlySet<string> = new Set(["proxy-authorization", "proxy-connection", "connection"]);
const connectMs = 30_000;

/** The first of those. */
export async function allowedAddress(host: string, options: GuardOptions): Promise<string> {
  return (await allowedAddresses(host, options))[0] ?? "";
}

/**
 * At least one, in the order of preference.
 * @throws Forbidden when it leads only where users may not go; Unavailable when it leads nowhere.
 */
export async function allowedAddresses(host: string, options: GuardOptions): Promise<string[]> {
  const name = host.replace(/^\[(.*)\]$/, "$1");
  const found = parseIp(name) ? [name] : await resolved(name, options.resolve ?? systemResolve);
  const rules = { allowed: options.allowed, own: ownNetworks() };
  const allowed = found.filter((text) => {
    const ip = parseIp(text);
    return ip !== undefined && isAllowedAddress(ip, rules);
  });
  if (allowed.length > 0) return allowed;
  throw new StrataError(
    "Forbidden",
    `${name} is an internal address (allowed: public ones, and networks that the operator of the host has named in ` +
      `${options.setting})`,
    // Not for whoever asked: what a name means inside is not theirs to know.
    { detail: found.join(", ") },
  );
}

async function resolved(name: string, resolve: Resolve): Promise<readonly string[]> {
  const found = await resolve(name).catch((cause) => {
    throw new StrataError("Unavailable", `the name ${name} leads nowhere`, { cause });
  });
  if (found.length === 0) throw new StrataError("Unavailable", `the name ${name} leads nowhere`);
  return found;
}

function ownNetworks(): IpRange[] {
  const all = Object.values(networkInterfaces()).flatMap((cards) => cards ?? []);
  return all.flatMap(({ cidr }) => parseRange(cidr ?? "")?.range ?? []);
}

export class GuardedProxy {
  /** For the variables HTTP_PROXY and HTTPS_PROXY: nobody else on this host may use it. */
  readonly url: string;
  readonly #server: Server;
  readonly #sockets: Set<Duplex>;

  private constructor(server: Server, url: string, sockets: Set<Duplex>) {
    this.#server = server;
    this.url = url;
    this.#sockets = sockets;
  }

  static async open(options: GuardOptions): Promise<GuardedProxy> {
    const password = Buffer.from((options.random ?? systemRandom).bytes(24)).toString("base64url");
    const wanted = `Basic ${Buffer.from(`strata:${password}`).toString("base64")}`;
    const sockets = new Set<Duplex>();
    // No limit on how long a request may take to come: what is uploaded may be large, and the way slow.
    const server = createServer({ requestTimeout: 0 });
    const addressOf = async (host: string, asked: IncomingMessage) => {
      if (asked.headers["proxy-authorization"] !== wanted) throw new StrataError("Forbidden", "no password");
      return allowedAddress(host, options).catch((error) => {
        if (error instanceof StrataError && error.code === "Forbidden") options.onRefusal?.(error);
        throw error;
      });
    };
    server.on("connection", (socket) => remember(sockets, socket));
    server.on("request", (asked, answer) => {
      forward(asked, answer, addressOf).catch(() => refuse(answer));
    });
    server.on("connect", (asked, client, head) => {
      tunnel(asked, client, head, { addressOf, sockets }).catch(() => {
        client.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
      });
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", resolve);
    });
    const { port } = server.address() as AddressInfo;
    return new GuardedProxy(server, `http://strata:${password}@127.0.0.1:${port}`, sockets);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

type AddressOf = (host: string, asked: IncomingMessage) => Promise<string>;

/** `GET http://HOST/… HTTP/1.1` */
async function forward(asked: IncomingMessage, answer: ServerResponse, addressOf: AddressOf): Promise<void> {
  const url = new URL(asked.url ?? "");
  if (url.protocol !== "http:") throw new StrataError("Invalid", "only http is forwarded");
  const host = await addressOf(url.hostname, asked);
  const headers = Object.fromEntries(Object.entries(asked.headers).filter(([name]) => !ownHeaders.has(name)));
  const options = { host, port: url.port || 80, method: asked.method, path: `${url.pathname}${url.search}` };
  await new Promise<void>((resolve, reject) => {
    const onward = httpRequest({ ...options, headers, timeout: connectMs, agent: false }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.rawHeaders);
      response.pipe(answer).on("close", resolve);
      response.on("error", reject);
    });
    onward.on("error", reject);
    onward.on("timeout", () => {
      if (onward.socket?.connecting) onward.destroy(new Error("no answer"));
    });
    answer.on("close", () => onward.destroy());
    asked.pipe(onward);
  });
}

/** `CONNECT HOST:PORT HTTP/1.1`: what is said in there is between the two. */
async function tunnel(
  asked: IncomingMessage,
  client: Duplex,
  head: Buffer,
  { addressOf, sockets }: { addressOf: AddressOf; sockets: Set<Duplex> },
): Promise<void> {
  client.on("error", () => client.destroy());
  const url = new URL(`http://${asked.url ?? ""}`);
  const host = await addressOf(url.hostname, asked);
  const onward = connect({ host, port: Number(url.port || 80), timeout: connectMs });
  remember(sockets, onward);
  onward.on("timeout", () => {
    if (onward.connecting) onward.destroy(new Error("no answer"));
  });
  await new Promise<void>((resolve, reject) => {
    onward.once("connect", resolve).once("error", reject);
  });
  onward.on("error", () => client.destroy());
  onward.on("close", () => client.destroy());
  client.on("close", () => onward.destroy());
  client.write("HTTP/1.1 200 Connection established\r\n\r\n");
  if (head.length > 0) onward.write(head);
  onward.pipe(client).pipe(onward);
}

function remember(sockets: Set<Duplex>, socket: Socket | Duplex): void {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
}

function refuse(answer: ServerResponse): void {
  if (answer.headersSent) answer.destroy();
  else answer.writeHead(502).end();
}
