import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../core/json.ts";
import { backupKind, isRestorable } from "../kinds/backup.ts";
import { hostKind } from "../kinds/host.ts";
import { exportFormats, imageKind } from "../kinds/image.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { authorize, authorizeAction, type Principal, requireOperator } from "../services/principal.ts";
import type { Services } from "../services/services.ts";
import { type EventStreams, streamLimits } from "./event-stream.ts";
import { HttpError } from "./problems.ts";
import { Query } from "./query.ts";
import type { NewSessionRequest, SessionHub, SessionRequest } from "./session-hub.ts";
import { splice } from "./splice.ts";

/**
 * exec, console, log and drift of instances, the access log of load balancers, export and build log of images: WebSockets that are spliced to
 * one that the agent dials. All that can be refused is refused before the upgrade, as an ordinary answer.
 *
 * Frames: binary is one octet (0 stdin, 1 stdout, 2 stderr) and data; text is a JSON control message: `resize`
 * {columns, rows}, `stdin-end`, `exit` {status}, `error` {problem}; for exports, build logs and drift `progress` {step, fraction?} and `done`
 * {sizeBytes, sha256}. Nothing of them is looked at here.
 */

declare module "fastify" {
  interface FastifyRequest {
    /** The other end, once the agent has dialled. */
    agentSocket?: WebSocket | undefined;
  }
}

const verbs = ["exec", "console", "log", "drift", "access-log"] as const;
type Verb = (typeof verbs)[number];

/** From the agent's answer to the client's finished upgrade. */
const upgradeMs = 10_000;
/** Two for each session: the client's and the agent's. */
const maxSockets = 2_000;
const maxParametersLength = 16 * 1024;

interface Parts {
  services: Services;
  streams: EventStreams;
  hub: SessionHub;
  clock: Clock;
}

export function installSessionRoutes(app: FastifyInstance, parts: Parts): void {
  const { services, streams, hub } = parts;
  app.decorateRequest("agentSocket");
  for (const verb of verbs) {
    app.get<{ Params: { project: string; name: string } }>(
      `/v1/projects/:project/${kindOf(verb).plural}/:name/${verb}`,
      {
        websocket: true,
        preHandler: async (request) => {
          requireUpgrade(request);
          requireRoom(app);
          request.agentSocket = await openSession(parts, verb, request);
        },
      },
      (socket, request) => join(parts.clock, socket, request),
    );
  }
  app.get<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/images/:name/export",
    {
      websocket: true,
      preHandler: async (request) => {
        requireUpgrade(request);
        requireRoom(app);
        request.agentSocket = await openExport(parts, request);
      },
    },
    (socket, request) => join(parts.clock, socket, request),
  );
  app.get<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/images/:name/build-log",
    {
      websocket: true,
      preHandler: async (request) => {
        requireUpgrade(request);
        requireRoom(app);
        request.agentSocket = await openBuildLog(parts, request);
      },
    },
    (socket, request) => join(parts.clock, socket, request),
  );
  app.get<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/backups/:name/file",
    {
      websocket: true,
      preHandler: async (request) => {
        requireUpgrade(request);
        requireRoom(app);
        request.agentSocket = await openBackup(parts, request);
      },
    },
    (socket, request) => join(parts.clock, socket, request),
  );
  app.get<{ Params: { name: string } }>("/v1/hosts/:name/sessions", async (request, reply) => {
    new Query(request.query, []);
    requireOperator(request.principal, "take the sessions of a host");
    const { name } = request.params;
    await streams.serve(request, reply, async (signal) => {
      await services.resources.require(request.principal, hostKind, { name });
      return sessionEvents(hub.requests(name, signal));
    });
  });
  app.get<{ Params: { id: string } }>(
    "/v1/sessions/:id",
    {
      websocket: true,
      preHandler: async (request) => {
        requireOperator(request.principal, "answer a session");
        requireUpgrade(request);
        if (hub.expects(request.params.id)) return;
        throw new StrataError("NotFound", "nobody waits for this session; it was answered or given up");
      },
    },
    (socket, request) => hub.answer(request.params.id, socket),
  );
}

async function* sessionEvents(requests: AsyncIterable<SessionRequest>) {
  for await (const data of requests) yield { event: "session", data };
}

async function openSession(
  parts: Parts,
  verb: Verb,
  request: FastifyRequest<{ Params: { project: string; name: string } }>,
): Promise<WebSocket> {
  const parameters = parametersOf(new Query(request.query, ["parameters"]).text("parameters"));
  const { project, name } = request.params;
  checkMay(request.principal, verb, project);
  const found = await parts.services.resources.require(request.principal, kindOf(verb), { project, name });
  const host = verb === "access-log" ? hostOfBalancer(found) : hostOf(found as Instance, verb);
  const { uid } = found.metadata;
  return askAgent(parts, host, { verb, instance: { project, name, uid }, parameters }, request);
}

/** The content of an image, from the host that has it. */
async function openExport(
  parts: Parts,
  request: FastifyRequest<{ Params: { project: string; name: string } }>,
): Promise<WebSocket> {
  const format = new Query(request.query, ["format"]).requireText("format");
  if (!exportFormats.some((known) => known === format)) {
    const allowed = exportFormats.join(", ");
    throw new StrataError("Invalid", `an image cannot be exported as "${format.slice(0, 40)}"`, {
      fields: [{ path: "?format", message: "is not a known format", allowed }],
    });
  }
  const { project, name } = request.params;
  authorize(request.principal, "read", imageKind, project);
  const image = await parts.services.resources.require(request.principal, imageKind, { project, name });
  const { state, host } = image.status;
  if (state !== "ready" || host === undefined) {
    throw new StrataError("Conflict", `image "${name}" is ${state}; only a ready one can be exported`);
  }
  const subject = { project, name, uid: image.metadata.uid };
  return askAgent(parts, host, { verb: "export", image: subject, parameters: { format } }, request);
}

/** What an image's build printed, from the host that makes it or has made it, also when it failed. */
async function openBuildLog(
  parts: Parts,
  request: FastifyRequest<{ Params: { project: string; name: string } }>,
): Promise<WebSocket> {
  new Query(request.query, []);
  const { project, name } = request.params;
  authorize(request.principal, "read", imageKind, project);
  const image = await parts.services.resources.require(request.principal, imageKind, { project, name });
  const { state, host } = image.status;
  if (host === undefined) {
    throw new StrataError("Conflict", `image "${name}" is ${state} and no host makes it yet; it has no log`);
  }
  const subject = { project, name, uid: image.metadata.uid };
  return askAgent(parts, host, { verb: "build-log", image: subject, parameters: {} }, request);
}

/** One file of a backup, from the host that restores it. */
async function openBackup(
  parts: Parts,
  request: FastifyRequest<{ Params: { project: string; name: string } }>,
): Promise<WebSocket> {
  const query = new Query(request.query, ["path", "volume"]);
  const path = query.requireText("path");
  const volume = query.text("volume");
  const { project, name } = request.params;
  authorizeAction(request.principal, backupKind, project, "read files of backups");
  const backup = await parts.services.resources.require(request.principal, backupKind, { project, name });
  const { state, host } = backup.status;
  if (!isRestorable(backup) || host === undefined) {
    throw new StrataError("Conflict", `backup "${name}" is ${state}; only a ready one has files`);
  }
  const subject = { project, name, uid: backup.metadata.uid };
  const parameters = { path, ...(volume === undefined ? {} : { volume }) };
  return askAgent(parts, host, { verb: "file", backup: subject, parameters }, request);
}

async function askAgent(
  parts: Parts,
  host: string,
  asked: NewSessionRequest,
  request: FastifyRequest,
): Promise<WebSocket> {
  const gone = new AbortController();
  const onClose = () => gone.abort(new StrataError("Unavailable", "the client went away"));
  request.raw.socket.once("close", onClose);
  const agent = await parts.hub.open(host, asked, gone.signal);
  request.raw.socket.off("close", onClose);
  // Should the upgrade fail after all, nobody else would end the agent's side.
  const cancel = parts.clock.after(upgradeMs, () => {
    if (request.agentSocket === agent) agent.close(1001, "the client went away");
  });
  agent.once("close", cancel);
  return agent;
}

function join(clock: Clock, client: WebSocket, request: FastifyRequest): void {
  const agent = request.agentSocket;
  request.agentSocket = undefined;
  if (!agent) {
    client.close(1011, "the session was not opened");
    return;
  }
  // Finds peers that vanished without a word, also while a slow terminal keeps the stream paused.
  request.raw.socket.setKeepAlive(true, 30_000);
  client.pause();
  splice(client, agent);
  void endWhenRevoked(clock, client, request);
}

async function endWhenRevoked(clock: Clock, client: WebSocket, request: FastifyRequest): Promise<void> {
  const ended = new AbortController();
  client.once("close", () => ended.abort());
  try {
    for (;;) {
      await clock.sleep(streamLimits.heartbeatMs, ended.signal);
      await request.reauthenticate();
    }
  } catch {
    client.close(1008, "the token is not valid any more");
  }
}

function checkMay(principal: Principal, verb: Verb, project: string): void {
  if (verb === "log" || verb === "access-log") authorize(principal, "read", kindOf(verb), project);
  else authorizeAction(principal, instanceKind, project, `open ${verb} sessions`);
}

function kindOf(verb: Verb): Kind {
  return (verb === "access-log" ? loadBalancerKind : instanceKind) as Kind;
}

/** @throws Conflict while it has none. */
function hostOfBalancer({ metadata, status }: Resource): string {
  const { host } = status as { host?: string };
  if (host !== undefined) return host;
  throw new StrataError("Conflict", `load balancer "${metadata.name}" is on no host yet; it has no log`);
}

/** @throws Conflict in a state in which there is nothing to connect to. */
function hostOf(instance: Instance, verb: Verb): string {
  const { state, host } = instance.status;
  const { name } = instance.metadata;
  if (verb === "exec" && state !== "running") {
    throw new StrataError("Conflict", `instance "${name}" is ${state}, not running; start it first`);
  }
  if (host === undefined) {
    throw new StrataError(
      "Conflict",
      `instance "${name}" is ${state} and on no host yet; wait until it runs`,
    );
  }
  return host;
}

function requireRoom(app: FastifyInstance): void {
  if (app.websocketServer.clients.size < maxSockets) return;
  throw new StrataError("Unavailable", "too many sessions are open; try again when some have ended");
}

function requireUpgrade(request: FastifyRequest): void {
  if (request.ws) return;
  throw new HttpError(426, "Invalid", "this is a WebSocket: connect to it with one");
}

function parametersOf(text: string | undefined): JsonObject {
  if (text === undefined) return {};
  const wrong = new StrataError("Invalid", "?parameters must be a JSON object of at most 16 KiB");
  if (text.length > maxParametersLength) throw wrong;
  try {
    const value = JSON.parse(text) as Json;
    if (isJsonObject(value)) return value;
  } catch {
    // No JSON: the same answer.
  }
  throw wrong;
}
