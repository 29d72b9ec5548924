import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type FieldError, StrataError } from "../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../core/json.ts";
import { closest } from "../core/spelling.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { kinds } from "../kinds/registry.ts";
import { tokenKind } from "../kinds/token.ts";
import type { Filter } from "../services/listing.ts";
import type { Draft, WriteOptions } from "../services/resources.ts";
import type { Services } from "../services/services.ts";
import { afterRevision, type ResourceEvent, type WatchPosition } from "../services/watching.ts";
import type { EventStreams, ServerEvent } from "./event-stream.ts";
import { etagOf, isKnown, revisionOf, withPrecondition } from "./preconditions.ts";
import { Query } from "./query.ts";

/** The routes that every kind has. They translate between HTTP and the services, and decide nothing. */
export function installResourceRoutes(
  app: FastifyInstance,
  parts: { services: Services; streams: EventStreams },
): void {
  for (const kind of kinds as readonly Kind[]) {
    const routes = new KindRoutes(kind, parts.services, parts.streams);
    const base = kind.scope === "project" ? `/v1/projects/:project/${kind.plural}` : `/v1/${kind.plural}`;
    app.get(base, routes.list);
    if (kind.scope === "project") app.get(`/v1/${kind.plural}`, routes.list);
    // Tokens are made by a route of their own, which alone can tell the secret.
    if (kind.name !== tokenKind.name) {
      app.post(base, routes.create);
      app.put(`${base}/:name`, routes.apply);
    }
    app.get(`${base}/:name`, routes.get);
    app.patch(`${base}/:name`, routes.patch);
    app.delete(`${base}/:name`, routes.delete);
    app.patch(`${base}/:name/status`, routes.patchStatus);
    app.delete(`${base}/:name/finalizers/:finalizer`, routes.removeFinalizer);
  }
}

type Handler = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;

const filterParameters = ["label", "host", "state"];

class KindRoutes {
  readonly #kind: Kind;
  readonly #services: Services;
  readonly #streams: EventStreams;

  constructor(kind: Kind, services: Services, streams: EventStreams) {
    this.#kind = kind;
    this.#services = services;
    this.#streams = streams;
  }

  readonly list: Handler = async (request, reply) => {
    const query = new Query(request.query, ["limit", "after", "watch", ...filterParameters]);
    if (query.flag("watch")) return this.#watch(request, reply, query);
    const limit = query.integer("limit");
    const after = query.text("after");
    return this.#services.resources.list(request.principal, this.#kind, {
      ...selectionOf(request, query),
      ...(limit === undefined ? {} : { limit }),
      ...(after === undefined ? {} : { after }),
    });
  };

  readonly get: Handler = async (request, reply) => {
    new Query(request.query, []);
    const resource = await this.#services.resources.require(request.principal, this.#kind, refOf(request));
    if (!isKnown(request.headers, etagOf(resource))) return send(reply, 200, resource);
    return reply.code(304).header("etag", etagOf(resource)).send();
  };

  readonly create: Handler = async (request, reply) => {
    new Query(request.query, []);
    const { project } = request.params as { project?: string };
    const draft = draftOf(this.#kind, request.body, { ...(project === undefined ? {} : { project }) });
    const key = request.headers["idempotency-key"];
    const options = typeof key === "string" ? { idempotencyKey: key } : {};
    const resource = await this.#services.resources.create(request.principal, this.#kind, draft, options);
    return send(reply.header("location", pathOf(this.#kind, resource)), 201, resource);
  };

  readonly apply: Handler = async (request, reply) => {
    new Query(request.query, []);
    const ref = refOf(request);
    const draft = draftOf(this.#kind, request.body, ref);
    const options = preconditionOf(request);
    const { resources } = this.#services;
    if (options.ifRevision === 0) {
      const created = await resources.create(request.principal, this.#kind, draft);
      return send(reply.header("location", pathOf(this.#kind, created)), 201, created);
    }
    const { resource, created } = await withPrecondition(options.ifRevision, () =>
      resources.apply(request.principal, this.#kind, draft, options),
    );
    return send(reply, created ? 201 : 200, resource);
  };

  readonly patch: Handler = async (request, reply) => {
    new Query(request.query, []);
    const body = objectBody(request.body);
    const { kind, metadata, spec, ...others } = body;
    refuseUnknown(Object.keys(others), ["kind", "metadata", "spec"], "");
    checkKind(this.#kind, kind);
    const { labels, ...otherMetadata } = objectBody(metadata ?? {}, "metadata");
    refuseUnknown(Object.keys(otherMetadata), ["labels"], "metadata.");
    const options = preconditionOf(request);
    const resource = await withPrecondition(options.ifRevision, () =>
      this.#services.resources.patch(
        request.principal,
        this.#kind,
        refOf(request),
        { labels, spec },
        options,
      ),
    );
    return send(reply, 200, resource);
  };

  readonly delete: Handler = async (request, reply) => {
    const query = new Query(request.query, ["cascade"]);
    const options = { ...preconditionOf(request), cascade: query.flag("cascade") };
    const left = await withPrecondition(options.ifRevision, () =>
      this.#services.resources.delete(request.principal, this.#kind, refOf(request), options),
    );
    return left ? send(reply, 202, left) : reply.code(204).send();
  };

  readonly patchStatus: Handler = async (request, reply) => {
    const uid = new Query(request.query, ["uid"]).requireText("uid");
    const patch = objectBody(request.body);
    const options = preconditionOf(request);
    const resource = await withPrecondition(options.ifRevision, () =>
      this.#services.resources.patchStatus(
        request.principal,
        this.#kind,
        refOf(request),
        uid,
        patch,
        options,
      ),
    );
    return send(reply, 200, resource);
  };

  readonly removeFinalizer: Handler = async (request, reply) => {
    const uid = new Query(request.query, ["uid"]).requireText("uid");
    const { finalizer } = request.params as { finalizer: string };
    await this.#services.resources.removeFinalizer(
      request.principal,
      this.#kind,
      refOf(request),
      uid,
      finalizer,
    );
    return reply.code(204).send();
  };

  async #watch(request: FastifyRequest, reply: FastifyReply, query: Query): Promise<void> {
    const lastId = request.headers["last-event-id"];
    const from = positionOf(typeof lastId === "string" ? lastId : query.text("after"));
    if (from === undefined || query.text("limit") !== undefined) {
      throw new StrataError(
        "Invalid",
        "a watch needs ?after=REVISION, as a list gives it, and takes no limit",
      );
    }
    await this.#streams.serve(request, reply, async (signal) => {
      const events = await this.#services.resources.watch(
        request.principal,
        this.#kind,
        { ...selectionOf(request, query), from },
        signal,
      );
      return serverEvents(events, from);
    });
  }
}

/** Positions as the ids of events: `REVISION.COUNT`, or `REVISION` for all up to that commit. */
function positionOf(id: string | undefined): WatchPosition | undefined {
  const match = /^(\d{1,15})(?:\.(\d{1,3}))?$/.exec(id ?? "");
  if (!match) return undefined;
  const revision = Number(match[1]);
  return match[2] === undefined ? afterRevision(revision) : { revision, count: Number(match[2]) };
}

/** The id of an event is the position to resume from. */
async function* serverEvents(
  events: AsyncIterable<ResourceEvent>,
  from: WatchPosition,
): AsyncGenerator<ServerEvent> {
  yield { event: "bookmark", data: { revision: from.revision - 1 } };
  for await (const event of events) {
    const id = `${event.position.revision}.${event.position.count}`;
    if (event.type === "put") yield { event: "put", data: event.resource, id };
    else yield { event: "delete", data: event.ref, id };
  }
}

function send(reply: FastifyReply, status: number, resource: Resource): FastifyReply {
  return reply.code(status).header("etag", etagOf(resource)).send(resource);
}

function refOf(request: FastifyRequest): Ref {
  const { project, name } = request.params as { project?: string; name: string };
  return project === undefined ? { name } : { project, name };
}

function pathOf(kind: Kind, resource: Resource): string {
  const { name, project } = resource.metadata;
  return project === undefined
    ? `/v1/${kind.plural}/${name}`
    : `/v1/projects/${project}/${kind.plural}/${name}`;
}

function selectionOf(request: FastifyRequest, query: Query): Filter & { project?: string } {
  const { project } = request.params as { project?: string };
  const labels = query.pairs("label");
  const host = query.text("host");
  const state = query.text("state");
  return {
    ...(project === undefined ? {} : { project }),
    ...(labels === undefined ? {} : { labels }),
    ...(host === undefined ? {} : { host }),
    ...(state === undefined ? {} : { state }),
  };
}

function preconditionOf(request: FastifyRequest): WriteOptions {
  const ifRevision = revisionOf(request.headers);
  return ifRevision === undefined ? {} : { ifRevision };
}

/**
 * A resource as users write it. What only Strata writes (status, uid, revision …) may stand there, so that what GET
 * gave can be sent back, and is not looked at.
 * @throws Invalid for unknown fields and for a name, project or kind other than the path's.
 */
export function draftOf(kind: Kind, body: unknown, path: Partial<Ref>): Draft {
  const { kind: kindName, metadata, spec, status: _status, ...others } = objectBody(body);
  refuseUnknown(Object.keys(others), ["kind", "metadata", "spec", "status"], "");
  checkKind(kind, kindName);
  const fields = objectBody(metadata ?? {}, "metadata");
  refuseUnknown(
    Object.keys(fields).filter((key) => !writtenByStrata.has(key)),
    ["name", "project", "labels"],
    "metadata.",
  );
  const name = agreed("name", fields.name, path.name);
  const project = agreed("project", fields.project, path.project);
  if (name === undefined) {
    throw wrongField({ path: "metadata.name", message: "is required" });
  }
  const { labels } = fields;
  return {
    name,
    ...(project === undefined ? {} : { project }),
    ...(labels === undefined ? {} : { labels }),
    ...(spec === undefined ? {} : { spec }),
  };
}

const writtenByStrata: ReadonlySet<string> = new Set([
  "name",
  "project",
  "labels",
  "uid",
  "revision",
  "generation",
  "createdAt",
  "deletedAt",
  "finalizers",
  "owner",
]);

function agreed(field: string, written: Json | undefined, fromPath: string | undefined): string | undefined {
  if (written === undefined) return fromPath;
  if (typeof written !== "string") throw wrongField({ path: `metadata.${field}`, message: "must be text" });
  if (fromPath === undefined || written === fromPath) return written;
  throw wrongField({
    path: `metadata.${field}`,
    message: `is "${written.slice(0, 80)}", but the path says "${fromPath}"`,
    allowed: fromPath,
  });
}

function checkKind(kind: Kind, written: Json | undefined): void {
  if (written === undefined || written === kind.name) return;
  throw wrongField({ path: "kind", message: `must be ${kind.name} here`, allowed: kind.name });
}

function objectBody(body: unknown, where = "the body"): JsonObject {
  if (isJsonObject(body)) return body;
  throw new StrataError("Invalid", `${where} must be a JSON object`);
}

function refuseUnknown(keys: readonly string[], known: readonly string[], prefix: string): void {
  const [unknown] = keys;
  if (unknown === undefined) return;
  const near = closest(unknown, known);
  const hint = near === undefined ? "" : `; did you mean "${near}"?`;
  throw wrongField({
    path: `${prefix}${unknown.slice(0, 80)}`,
    message: `is not a known field${hint}`,
    allowed: known.join(", "),
  });
}

function wrongField(field: FieldError): StrataError {
  return new StrataError("Invalid", `the request's ${field.path} ${field.message}`, { fields: [field] });
}
