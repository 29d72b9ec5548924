import type { JsonObject } from "../core/json.ts";
import { exportFormats } from "../kinds/image.ts";
import { operation, parameters } from "./openapi-parts.ts";

/** What is a WebSocket, or a host's agent's end of one. */
export function sessionPaths(): JsonObject {
  const frames =
    "A WebSocket. Binary messages: one octet (0 stdin, 1 stdout, 2 stderr) and data. Text messages: JSON with `type` " +
    "resize {columns, rows}, stdin-end, exit {status} or error {problem}. What can be refused is refused before the " +
    "upgrade, with a problem.";
  const whole =
    "A WebSocket. Binary messages: the octet 1 and data. Text messages: JSON with `type` progress {step, fraction?}, " +
    "done {sizeBytes, sha256} after the last data, or error {problem}. What ends without `done` is incomplete.";
  const query = {
    name: "parameters",
    in: "query",
    description: "A JSON object.",
    schema: { type: "string" },
  };
  const session = (verb: string, summary: string): JsonObject => ({
    get: {
      ...operation({
        id: `${verb}Instance`,
        summary,
        tag: "Instance",
        parameters: [...parameters("project", "name"), query],
        answers: { 101: null },
      }),
      description: frames,
    },
  });
  const base = "/v1/projects/{project}/instances/{name}";
  return {
    [`${base}/exec`]: session("exec", "Run a command in the instance."),
    [`${base}/console`]: session("console", "Attach to its console."),
    [`${base}/log`]: session("log", "Read what its console printed."),
    "/v1/projects/{project}/load-balancers/{name}/access-log": {
      get: {
        ...operation({
          id: "readAccessLog",
          summary: "Read what was asked of it.",
          tag: "LoadBalancer",
          parameters: [...parameters("project", "name"), query],
          answers: { 101: null },
        }),
        description: frames,
      },
    },
    [`${base}/drift`]: {
      get: {
        ...operation({
          id: "driftInstance",
          summary: "Compare its root with the image that it was made from.",
          tag: "Instance",
          parameters: parameters("project", "name"),
          answers: { 101: null },
        }),
        description:
          "A WebSocket. Binary messages: the octet 1 and a part of a JSON text {imageDigest, at, reading, differences, more?}. Text " +
          "messages: JSON with `type` done {sizeBytes, sha256} after the last data, or error {problem}.",
      },
    },
    "/v1/projects/{project}/images/{name}/export": {
      get: {
        ...operation({
          id: "exportImage",
          summary: "Read an image's content in a format.",
          tag: "Image",
          parameters: [
            ...parameters("project", "name"),
            {
              name: "format",
              in: "query",
              required: true,
              schema: { type: "string", enum: [...exportFormats] },
            },
          ],
          answers: { 101: null },
        }),
        description: whole,
      },
    },
    "/v1/projects/{project}/backups/{name}/file": {
      get: {
        ...operation({
          id: "readBackupFile",
          summary: "Read one file of a backup.",
          tag: "Backup",
          parameters: [
            ...parameters("project", "name"),
            {
              name: "path",
              in: "query",
              required: true,
              description: "From the root of its file system. Symbolic links are not followed.",
              schema: { type: "string" },
            },
            {
              name: "volume",
              in: "query",
              required: false,
              description: "Of an instance's backup: in this of its volumes. Default: in its root.",
              schema: { type: "string" },
            },
          ],
          answers: { 101: null },
        }),
        description: whole,
      },
    },
    "/v1/projects/{project}/images/{name}/build-log": {
      get: {
        ...operation({
          id: "buildLogOfImage",
          summary: "Read what its build printed.",
          tag: "Image",
          parameters: parameters("project", "name"),
          answers: { 101: null },
        }),
        description:
          "A WebSocket. Binary messages: the octet 1 and a part of the text. Text messages: JSON with `type` done {sizeBytes, sha256} " +
          "after the last data, or error {problem}.",
      },
    },
    "/v1/hosts/{name}/sessions": {
      get: operation({
        id: "watchSessions",
        summary: "For agents: server-sent events `session`, each a request to dial /v1/sessions/ID.",
        tag: "Host",
        parameters: parameters("name"),
        answers: { 200: {} },
      }),
    },
    "/v1/sessions/{id}": {
      get: operation({
        id: "acceptSession",
        summary: "For agents: the WebSocket of a session's other end.",
        tag: "Host",
        parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }],
        answers: { 101: null },
      }),
    },
  };
}
