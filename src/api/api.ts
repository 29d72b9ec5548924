/**
 * The native REST API: HTTP in, calls of the services, HTTP out. It translates and decides nothing. The same routes
 * answer on a Unix socket, where the file's permission is the authority, and over HTTPS with bearer tokens.
 *
 * Invariants: every answer has a request id; every failure is a problem (RFC 9457) from one table; nothing a client
 * sends or fails to take can grow memory without bound; secrets reach neither logs nor messages.
 */
import type { Server } from "node:http";
import { createServer as createHttpsServer, type Server as HttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import websocket from "@fastify/websocket";
import fastify, { type FastifyInstance, type FastifyReply } from "fastify";
import type { Clock } from "../core/clock.ts";
import { describeError, StrataError } from "../core/errors.ts";
import { encodeBase32 } from "../core/ids.ts";
import type { Logger } from "../core/logger.ts";
import { createServer } from "../core/node-http.ts";
import type { Random } from "../core/random.ts";
import type { Services } from "../services/services.ts";
import { installAuthentication, TrustedSockets } from "./authentication.ts";
import { installBackupRoutes } from "./backup-routes.ts";
import { installBodyParser } from "./body.ts";
import { installCertificateRoutes } from "./certificate-routes.ts";
import { EventStreams } from "./event-stream.ts";
import { listen, listenOnPath } from "./listeners.ts";
import { installMetaRoutes } from "./meta-routes.ts";
import { installMetricRoutes } from "./metric-routes.ts";
import { HttpError, type Problem, problemType, toProblem } from "./problems.ts";
import { RequestCounts } from "./request-counts.ts";
import { installResourceRoutes } from "./resource-routes.ts";
import { SessionHub } from "./session-hub.ts";
import { installSessionRoutes } from "./session-routes.ts";
import { installTokenRoutes } from "./token-routes.ts";
import { installUploadRoutes } from "./upload-routes.ts";

export interface ApiOptions {
  services: Services;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Of the daemon, for /v1/version. */
  version: string;
}

export interface Api {
  /** @throws Conflict when another process listens there. */
  listenUnix(path: string): Promise<void>;
  /** PEM in; port 0 takes a free one. Returns the port. */
  listenHttps(where: { host: string; port: number; cert: string; key: string }): Promise<{ port: number }>;
  /** `METHOD /path/:parameter` of all that it answers to. */
  readonly routes: readonly string[];
  /** Ends streams, lets answers under way finish, and removes the socket. Idempotent. */
  close(): Promise<void>;
}

const serverLimits = {
  /** Of the request line and headers together. */
  maxHeaderSize: 32 * 1024,
  headersTimeoutMs: 10_000,
  keepAliveTimeoutMs: 65_000,
  /** How long answers under way may take when the API closes. */
  closeTimeoutMs: 3_000,
  maxHttpsConnections: 2_000,
} as const;

const serverOptions = {
  maxHeaderSize: serverLimits.maxHeaderSize,
  headersTimeout: serverLimits.headersTimeoutMs,
  keepAliveTimeout: serverLimits.keepAliveTimeoutMs,
  // Uploads take as long as they take; JSON bodies have a bound of their own.
  requestTimeout: 0,
};

const closePollMs = 10;
/** Of one message of a session. */
const maxMessageBytes = 1024 * 1024;

export async function createApi(options: ApiOptions): Promise<Api> {
  const trusted = new TrustedSockets();
  const streams = new EventStreams(options.clock);
  const unixServer = createServer(serverOptions);
  const counts = new RequestCounts();
  const routes = new RouteTable();
  const app = buildApp(options, unixServer, counts, routes);
  await app.register(websocket, { options: { maxPayload: maxMessageBytes, perMessageDeflate: false } });
  installBodyParser(app, options.clock);
  installAuthentication(app, { services: options.services, trusted, clock: options.clock });
  installMetaRoutes(app, options.version);
  installTokenRoutes(app, options.services);
  installMetricRoutes(app, { services: options.services, counts, version: options.version });
  installResourceRoutes(app, { services: options.services, streams });
  await installUploadRoutes(app, options.services.uploads);
  installBackupRoutes(app, options.services);
  installCertificateRoutes(app, options.services);
  const hub = new SessionHub(options.clock, options.random);
  installSessionRoutes(app, { services: options.services, streams, hub, clock: options.clock });
  await app.ready();
  unixServer.on("connection", (socket: Socket) => trusted.add(socket));
  return new RunningApi(app, streams, unixServer, options, routes.list());
}

function buildApp(
  { random, logger }: ApiOptions,
  server: Server,
  counts: RequestCounts,
  routes: RouteTable,
): FastifyInstance {
  const app = fastify({
    serverFactory: (handler) => server.on("request", handler),
    genReqId: () => encodeBase32(random.bytes(10)),
    clientErrorHandler: answerBroken,
    frameworkErrors: (error, request, reply) => {
      reply.header("x-request-id", request.id);
      sendProblem(reply as FastifyReply, toProblem(error, request.id));
    },
    logger: false,
    exposeHeadRoutes: false,
    routerOptions: { maxParamLength: 200 },
    forceCloseConnections: false,
  });
  app.addHook("onRequest", async (request, reply) => {
    reply.header("x-request-id", request.id);
    reply.header("x-content-type-options", "nosniff");
    reply.header("cache-control", "no-store");
  });
  app.addHook("onResponse", async (request, reply) => {
    const { method, url } = request;
    counts.count(reply.statusCode);
    const ms = Math.round(reply.elapsedTime * 10) / 10;
    const who = request.principal?.name;
    logger.debug(
      { requestId: request.id, method, url: withoutQuery(url), status: reply.statusCode, ms, who },
      "request",
    );
  });
  app.setErrorHandler((error, request, reply) => {
    const problem = toProblem(error, request.id);
    const { status, body } = problem;
    if (status >= 500 && status !== 503) {
      logger.error({ requestId: request.id, error: describeError(error) }, "a request failed");
    }
    if (body.code === "Unavailable") reply.header("retry-after", "1");
    return sendProblem(reply, problem);
  });
  app.addHook("onRoute", ({ method, url }) => routes.add(method, url));
  app.setNotFoundHandler(async (request) => {
    const path = withoutQuery(request.url);
    throw unknownRoute(request.method, path, routes.methodsOf(path));
  });
  return app;
}

function sendProblem(reply: FastifyReply, { status, body }: Problem): FastifyReply {
  // As bytes, or a charset would be added, which JSON has no use for (RFC 8259).
  return reply
    .code(status)
    .type(problemType)
    .send(Buffer.from(JSON.stringify(body)));
}

/** Which methods a path answers to, for those who used another. */
class RouteTable {
  readonly #routes: { method: string; segments: string[] }[] = [];

  add(method: string | string[], url: string): void {
    for (const one of [method].flat()) this.#routes.push({ method: one, segments: url.split("/") });
  }

  list(): string[] {
    return this.#routes.map(({ method, segments }) => `${method} ${segments.join("/")}`);
  }

  methodsOf(path: string): string[] {
    const given = path.split("/");
    const matching = this.#routes.filter(
      ({ segments }) =>
        segments.length === given.length &&
        segments.every((segment, i) => segment.startsWith(":") || segment === given[i]),
    );
    return matching.map((route) => route.method);
  }
}

function unknownRoute(method: string, path: string, methods: readonly string[]): HttpError {
  const shown = path.slice(0, 200);
  if (methods.length === 0) {
    return new HttpError(404, "NotFound", `there is no ${shown}; GET /v1/openapi.json lists what there is`);
  }
  return new HttpError(
    405,
    "Unsupported",
    `${shown} does not answer to ${method}, but to ${methods.join(", ")}`,
  );
}

/** Parameters may hold what logs must not. */
function withoutQuery(url: string): string {
  return url.split("?", 1)[0] ?? "";
}

class RunningApi implements Api {
  readonly routes: readonly string[];
  readonly #app: FastifyInstance;
  readonly #streams: EventStreams;
  readonly #unixServer: Server;
  readonly #options: ApiOptions;
  #httpsServer: HttpsServer | undefined;
  #removeSocket: (() => Promise<void>) | undefined;
  #closed: Promise<void> | undefined;

  constructor(
    app: FastifyInstance,
    streams: EventStreams,
    unixServer: Server,
    options: ApiOptions,
    routes: readonly string[],
  ) {
    this.routes = routes;
    this.#app = app;
    this.#streams = streams;
    this.#unixServer = unixServer;
    this.#options = options;
  }

  async listenUnix(path: string): Promise<void> {
    this.#removeSocket = await listenOnPath(this.#unixServer, path);
  }

  async listenHttps(where: {
    host: string;
    port: number;
    cert: string;
    key: string;
  }): Promise<{ port: number }> {
    const server = createHttpsServer(
      { ...serverOptions, cert: where.cert, key: where.key, minVersion: "TLSv1.2" },
      (request, response) => this.#app.routing(request, response),
    );
    server.maxConnections = serverLimits.maxHttpsConnections;
    server.on("clientError", answerBroken);
    // Upgrades are handled once, where the routes are.
    server.on("upgrade", (...upgrade) => this.#unixServer.emit("upgrade", ...upgrade));
    await listen(server, { host: where.host, port: where.port });
    this.#httpsServer = server;
    return { port: (server.address() as AddressInfo).port };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const { clock } = this.#options;
    await this.#removeSocket?.();
    const servers = [this.#unixServer, this.#httpsServer].filter((server) => server !== undefined);
    let open = servers.filter((server) => server.listening).length;
    for (const server of servers) server.close(() => open--);
    this.#streams.close();
    const sessions = this.#app.websocketServer.clients;
    for (const session of sessions) session.close(1001, "the daemon is shutting down");
    const deadline = clock.monotonicMs() + serverLimits.closeTimeoutMs;
    while (open > 0 && clock.monotonicMs() < deadline) {
      // Connections that were busy before become idle one by one, and Node leaves them open then.
      for (const server of servers) server.closeIdleConnections();
      await clock.sleep(closePollMs);
    }
    for (const server of servers) server.closeAllConnections();
    for (const session of sessions) session.terminate();
    await this.#app.close();
  }
}

const brokenRequests: Readonly<Record<string, HttpError>> = {
  HPE_HEADER_OVERFLOW: new HttpError(
    431,
    "Invalid",
    `the request line and headers are too long: at most ${serverLimits.maxHeaderSize} bytes`,
  ),
  ERR_HTTP_REQUEST_TIMEOUT: new HttpError(408, "Timeout", "the request did not arrive in time"),
};

/** What is no HTTP never reaches a route; it gets a problem all the same. */
function answerBroken(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const known =
    brokenRequests[error.code ?? ""] ?? new StrataError("Invalid", "the request is not valid HTTP");
  const { status, body } = toProblem(known, "none");
  const text = JSON.stringify(body);
  socket.end(
    `HTTP/1.1 ${status} ${body.title}\r\nContent-Type: ${problemType}\r\n` +
      `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
  );
}
