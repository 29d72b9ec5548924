/**
 * The metadata service: what guests are told at 169.254.169.254, in the form of EC2 (docs/rfd/0005-metadata.md).
 *
 * It listens on the host's end of each network's uplink and nowhere else. That address tells the network, the source
 * address the instance: the network lets no guest send from an address that is not its own. Whoever is nobody gets no
 * answer at all. Guests are strangers here: headers, bodies, times, connections and requests of each are bounded.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { isIPv4, type Socket } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import { createServer } from "../../core/node-http.ts";
import type { Random } from "../../core/random.ts";
import { type Answer, answerQuestion, failure } from "./answer.ts";
import type { InstanceFacts } from "./instance-facts.ts";
import { SessionTokens } from "./session-tokens.ts";
import { SourceLimits } from "./source-limits.ts";

export interface MetadataServiceOptions {
  /** Who asks from this source address in the network with this host address; undefined when nobody is known there. */
  lookup(hostAddress: string, sourceAddress: string): InstanceFacts | undefined;
  port: number;
  /** 32 random bytes that only this service knows. The same after a restart, so that sessions of guests go on. */
  key: Uint8Array;
  clock: Clock;
  random: Random;
  logger: Logger;
}

export interface MetadataService {
  /** Idempotent. @throws the system's error when the address is not there or the port is taken. */
  listen(hostAddress: string): Promise<void>;
  /** Ends its connections too. Not listening is success. */
  unlisten(hostAddress: string): Promise<void>;
  close(): Promise<void>;
}

const limits = {
  headerBytes: 8 * 1024,
  headersMs: 5_000,
  requestMs: 10_000,
  idleMs: 5_000,
  requestsPerConnection: 1_000,
  connectionsPerNetwork: 1_024,
} as const;

export function createMetadataService(options: MetadataServiceOptions): MetadataService {
  const tokens = new SessionTokens(options);
  const listening = new Map<string, Promise<Server>>();
  const unlisten = async (hostAddress: string) => {
    const server = listening.get(hostAddress);
    listening.delete(hostAddress);
    if (server) await server.then(closeServer, () => {});
  };
  return {
    async listen(hostAddress) {
      let server = listening.get(hostAddress);
      if (!server) {
        server = startListening(options, tokens, hostAddress);
        listening.set(hostAddress, server);
        server.catch(() => {
          if (listening.get(hostAddress) === server) listening.delete(hostAddress);
        });
      }
      await server;
    },
    unlisten,
    async close() {
      await Promise.all([...listening.keys()].map(unlisten));
    },
  };
}

function startListening(
  options: MetadataServiceOptions,
  tokens: SessionTokens,
  hostAddress: string,
): Promise<Server> {
  const sources = new SourceLimits(options.clock);
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: limits.headersMs,
      keepAliveTimeout: limits.idleMs,
    },
    (request, response) => respond(request, response, { options, tokens, sources, hostAddress }),
  );
  server.timeout = limits.requestMs;
  server.maxRequestsPerSocket = limits.requestsPerConnection;
  server.maxConnections = limits.connectionsPerNetwork;
  server.on("connection", (socket: Socket) => {
    const source = sourceOf(socket);
    if (sources.connect(source)) socket.once("close", () => sources.disconnect(source));
    else socket.resetAndDestroy();
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: hostAddress, port: options.port, backlog: 128 }, () => {
      server.off("error", reject);
      server.on("error", (error) =>
        options.logger.warn(
          { hostAddress, error: describeError(error) },
          "the metadata service has an error",
        ),
      );
      resolve(server);
    });
  });
}

interface Asked {
  options: MetadataServiceOptions;
  tokens: SessionTokens;
  sources: SourceLimits;
  hostAddress: string;
}

function respond(request: IncomingMessage, response: ServerResponse, asked: Asked): void {
  const { options, tokens, sources, hostAddress } = asked;
  const source = sourceOf(request.socket);
  // For each request: the address may pass to another instance while a connection is open.
  const facts = options.lookup(hostAddress, source);
  if (!facts) {
    request.socket.destroy();
    return;
  }
  const { method = "", url: target = "", headers } = request;
  const answer = sources.request(source)
    ? answerQuestion({ method, target, headers }, facts, tokens)
    : { ...failure(503, { "retry-after": "1" }), last: true };
  if (answer.status >= 400) {
    options.logger.debug({ instance: facts.uid, method, status: answer.status }, "metadata refused");
  }
  write(response, answer);
}

function write(response: ServerResponse, { status, headers, body, last = false }: Answer): void {
  response.writeHead(status, {
    ...headers,
    "content-length": `${Buffer.byteLength(body)}`,
    server: "EC2ws",
    "cache-control": "no-store",
    ...(last ? { connection: "close" } : {}),
  });
  response.end(body);
}

/** IPv4 also where the system writes it as `::ffff:10.0.0.7`. */
function sourceOf(socket: Socket): string {
  const address = socket.remoteAddress ?? "";
  const mapped = address.startsWith("::ffff:") ? address.slice("::ffff:".length) : "";
  return isIPv4(mapped) ? mapped : address;
}

async function closeServer(server: Server): Promise<void> {
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
