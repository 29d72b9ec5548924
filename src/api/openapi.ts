import type { z } from "zod";
import { errorCodes } from "../core/errors.ts";
import { namePattern } from "../core/ids.ts";
import type { Json, JsonObject } from "../core/json.ts";
import { type Kind, labelsSchema, metadataSchema } from "../kinds/kind.ts";
import { kinds } from "../kinds/registry.ts";
import { tokenKind } from "../kinds/token.ts";
import { listLimits } from "../services/listing.ts";
import { apiVersion } from "./meta-routes.ts";
import { materialPaths } from "./openapi-material.ts";
import { metricPaths } from "./openapi-metrics.ts";
import {
  headerParameter,
  jsonSchema,
  operation,
  parameters,
  pathParameter,
  queryParameter,
  ref,
} from "./openapi-parts.ts";
import { sessionPaths } from "./openapi-sessions.ts";
import { errorCodesToStatus, problemType } from "./problems.ts";

/**
 * The specification of the API (OpenAPI 3.1), made of the same schemas that check requests, so it cannot disagree with
 * them. Deterministic: the committed copy is compared with it byte by byte.
 */
export function buildOpenApi(): JsonObject {
  const paths: JsonObject = {};
  const schemas: JsonObject = { ...sharedSchemas() };
  for (const kind of kinds as readonly Kind[]) {
    Object.assign(schemas, kindSchemas(kind));
    Object.assign(paths, kindPaths(kind));
  }
  Object.assign(paths, otherPaths());
  return {
    openapi: "3.1.0",
    info: {
      title: "Strata",
      version: apiVersion,
      description:
        "A cloud of your own. Resources have a spec, which users write, and a status, which Strata writes. Every " +
        "failure is a problem (RFC 9457) with a closed set of codes.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "https://127.0.0.1:7443", description: "The port is a setting of the daemon." }],
    security: [{ token: [] }],
    paths,
    components: {
      schemas,
      parameters: sharedParameters,
      responses: { Problem: problemResponse },
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Over the Unix socket none is needed." },
      },
    },
  };
}

/** As it is committed and served. */
export function openApiText(): string {
  return `${JSON.stringify(buildOpenApi(), null, 2)}\n`;
}

function sharedSchemas(): JsonObject {
  return {
    Metadata: jsonSchema(metadataSchema, "input"),
    NewMetadata: {
      type: "object",
      properties: {
        name: { type: "string", pattern: namePattern.source },
        labels: jsonSchema(labelsSchema, "input"),
      },
      required: ["name"],
      description: "What else GET shows may be sent back and is not looked at.",
    },
    Problem: {
      type: "object",
      properties: {
        type: { type: "string" },
        title: { type: "string" },
        status: { type: "integer" },
        code: { type: "string", enum: [...errorCodes], description: statusDescription() },
        detail: { type: "string", description: "What failed, why, and what would help." },
        requestId: { type: "string" },
        fields: {
          type: "array",
          items: {
            type: "object",
            properties: {
              path: { type: "string" },
              message: { type: "string" },
              allowed: { type: "string" },
            },
            required: ["path", "message"],
          },
        },
      },
      required: ["type", "title", "status", "code", "detail", "requestId"],
    },
  };
}

function statusDescription(): string {
  return Object.entries(errorCodesToStatus)
    .map(([code, status]) => `${code} (${status})`)
    .join(", ");
}

function kindSchemas(kind: Kind): JsonObject {
  const { name } = kind;
  return {
    [`${name}Spec`]: jsonSchema(kind.spec, "input"),
    [`${name}Status`]: jsonSchema(kind.status, "input"),
    [name]: {
      type: "object",
      description: kind.summary,
      properties: {
        kind: { type: "string", const: name },
        metadata: ref("Metadata"),
        spec: ref(`${name}Spec`),
        status: ref(`${name}Status`),
      },
      required: ["kind", "metadata", "spec", "status"],
    },
    [`New${name}`]: {
      type: "object",
      properties: {
        kind: { type: "string", const: name },
        metadata: ref("NewMetadata"),
        spec: ref(`${name}Spec`),
      },
      required: ["metadata"],
    },
    [`${name}Page`]: {
      type: "object",
      properties: {
        items: { type: "array", items: ref(name) },
        revision: { type: "integer", description: "Watch after it to miss nothing." },
        next: { type: "string", description: "Pass as `after` for the next page; absent on the last." },
      },
      required: ["items", "revision"],
    },
  };
}

const sharedParameters: JsonObject = {
  name: pathParameter("name"),
  project: pathParameter("project"),
  uid: {
    name: "uid",
    in: "query",
    required: true,
    description: "Only while the resource has this uid.",
    schema: { type: "string" },
  },
  limit: queryParameter("limit", {
    type: "integer",
    minimum: 1,
    maximum: listLimits.maxItems,
    default: listLimits.defaultItems,
  }),
  after: queryParameter("after", { type: "string" }, "`next` of the page before; with `watch`, a revision."),
  watch: queryParameter(
    "watch",
    { type: "boolean" },
    "Answer with server-sent events: put (a resource), delete (its name and project), bookmark, error (a problem).",
  ),
  label: queryParameter(
    "label",
    { type: "array", items: { type: "string" } },
    "KEY=VALUE; may be repeated: all must match.",
  ),
  host: queryParameter("host", { type: "string" }, "Only resources on this host."),
  state: queryParameter("state", { type: "string" }, "Only resources in this state."),
  cascade: queryParameter("cascade", { type: "boolean" }, "Projects: with everything in them."),
  ifMatch: headerParameter("If-Match", "Only while the resource has this ETag."),
  ifNoneMatch: headerParameter("If-None-Match", "`*`: only if it does not exist."),
  idempotencyKey: headerParameter(
    "Idempotency-Key",
    "The same key and body within a day give the resource that the first request created.",
  ),
};

const problemResponse: JsonObject = {
  description: "It failed.",
  content: { [problemType]: { schema: ref("Problem") } },
};

function kindPaths(kind: Kind): JsonObject {
  const { name, plural, scope } = kind;
  const inProject = scope === "project" ? parameters("project") : [];
  const base = scope === "project" ? `/v1/projects/{project}/${plural}` : `/v1/${plural}`;
  const listing = parameters("limit", "after", "watch", "label", "host", "state");
  const list = (id: string, summary: string, own: Json[]) =>
    operation({
      id,
      summary,
      tag: name,
      parameters: [...own, ...listing],
      answers: { 200: ref(`${name}Page`) },
    });
  const named = [...inProject, ...parameters("name")];
  const collection: JsonObject = { get: list(`list${name}s`, `List ${plural}.`, inProject) };
  if (kind.name !== tokenKind.name) collection.post = createOperation(kind, inProject);
  const paths: JsonObject = {
    [base]: collection,
    [`${base}/{name}`]: itemOperations(kind, named),
    [`${base}/{name}/status`]: {
      patch: operation({
        id: `patch${name}Status`,
        summary: "For agents and controllers: merge patch of the status.",
        tag: name,
        parameters: [...named, ...parameters("uid", "ifMatch")],
        body: { type: "object" },
        bodyType: "application/merge-patch+json",
        answers: { 200: ref(name) },
      }),
    },
    [`${base}/{name}/finalizers/{finalizer}`]: {
      delete: operation({
        id: `remove${name}Finalizer`,
        summary: "For agents and controllers: what the finalizer stood for is cleaned up.",
        tag: name,
        parameters: [
          ...named,
          { name: "finalizer", in: "path", required: true, schema: { type: "string" } },
          ...parameters("uid"),
        ],
        answers: { 204: null },
      }),
    },
  };
  if (scope === "project") {
    paths[`/v1/${plural}`] = { get: list(`listAll${name}s`, `List ${plural} of all projects.`, []) };
  }
  return paths;
}

function createOperation(kind: Kind, inProject: Json[]): JsonObject {
  const { name } = kind;
  return operation({
    id: `create${name}`,
    summary: kind.summary,
    tag: name,
    parameters: [...inProject, ...parameters("idempotencyKey")],
    body: ref(`New${name}`),
    answers: { 201: ref(name) },
  });
}

const deleteSummaries: Readonly<Record<string, string>> = {
  Instance:
    "Delete it, with its disk and its published ports. Its network interfaces are detached, and its addresses stay " +
    "the project's.",
};

function itemOperations(kind: Kind, named: Json[]): JsonObject {
  const { name } = kind;
  const operations: JsonObject = {
    get: operation({
      id: `get${name}`,
      summary: "As it is now, with its revision as ETag.",
      tag: name,
      parameters: named,
      answers: { 200: ref(name) },
    }),
    patch: operation({
      id: `patch${name}`,
      summary: "Merge patch (RFC 7396) of metadata.labels and spec.",
      tag: name,
      parameters: [...named, ...parameters("ifMatch")],
      body: { type: "object" },
      bodyType: "application/merge-patch+json",
      answers: { 200: ref(name) },
    }),
    delete: operation({
      id: `delete${name}`,
      summary: deleteSummaries[name] ?? "Delete it, with what it owns.",
      tag: name,
      parameters: [...named, ...parameters("ifMatch", ...(name === "Project" ? ["cascade"] : []))],
      answers: { 202: ref(name), 204: null },
    }),
  };
  if (name !== tokenKind.name) {
    operations.put = operation({
      id: `apply${name}`,
      summary: "Create it or replace its labels and spec; unchanged is success and no write.",
      tag: name,
      parameters: [...named, ...parameters("ifMatch", "ifNoneMatch")],
      body: ref(`New${name}`),
      answers: { 200: ref(name), 201: ref(name) },
    });
  }
  return operations;
}

function otherPaths(): JsonObject {
  return { ...metaPaths(), ...uploadPaths(), ...sessionPaths(), ...metricPaths(), ...materialPaths() };
}

function metaPaths(): JsonObject {
  const text = { type: "string" };
  const version = { type: "object", properties: { version: text, apiVersion: text } };
  const answers = { 200: version };
  const issued = {
    type: "object",
    properties: { token: ref("Token"), secret: { ...text, description: "Shown here and never again." } },
    required: ["token", "secret"],
  };
  const newToken = {
    type: "object",
    properties: {
      metadata: ref("NewMetadata"),
      spec: jsonSchema((tokenKind.spec as unknown as z.ZodObject).omit({ secretHash: true }), "input"),
    },
    required: ["metadata", "spec"],
  };
  return {
    "/v1/tokens": {
      get: (kindPaths(tokenKind as Kind)["/v1/tokens"] as JsonObject).get ?? {},
      post: operation({
        id: "createToken",
        summary: tokenKind.summary,
        tag: "Token",
        body: newToken,
        answers: { 201: issued },
      }),
    },
    "/v1/version": {
      get: operation({ id: "getVersion", summary: "Of the daemon.", tag: "Meta", answers }),
    },
    "/v1/openapi.json": {
      get: operation({
        id: "getOpenApi",
        summary: "This document.",
        tag: "Meta",
        answers: { 200: { type: "object" } },
      }),
    },
    "/healthz": {
      get: {
        ...operation({
          id: "getHealth",
          summary: "Does it answer?",
          tag: "Meta",
          answers: { 200: { type: "object" } },
        }),
        security: [],
      },
    },
  };
}

function uploadPaths(): JsonObject {
  const text = { type: "string" };
  const upload = {
    type: "object",
    properties: { upload: text, sha256: text, sizeBytes: { type: "integer" } },
    required: ["upload", "sha256", "sizeBytes"],
  };
  const id = { name: "id", in: "path", required: true, schema: text };
  return {
    "/v1/uploads": {
      post: operation({
        id: "createUpload",
        summary: "Send a file for an image; it is kept for an hour unless an image uses it.",
        tag: "Upload",
        body: {},
        bodyType: "application/octet-stream",
        answers: { 201: upload },
      }),
    },
    "/v1/uploads/{id}": {
      get: operation({
        id: "getUpload",
        summary: "For agents: the file.",
        tag: "Upload",
        parameters: [id],
        answers: { 200: {} },
      }),
      delete: operation({
        id: "deleteUpload",
        summary: "For agents: it is not needed any more.",
        tag: "Upload",
        parameters: [id],
        answers: { 204: null },
      }),
    },
  };
}
