import type { JsonObject } from "../core/json.ts";
import { operation, parameters } from "./openapi-parts.ts";

const text: JsonObject = { type: "string" };

/** Secrets, for agents alone: whoever may not have them gets the problem Forbidden. */
export function materialPaths(): JsonObject {
  return {
    "/v1/projects/{project}/backup-repositories/{name}/secrets": {
      get: operation({
        id: "getBackupRepositorySecrets",
        summary: "For agents: what opens it.",
        tag: "BackupRepository",
        parameters: parameters("project", "name"),
        answers: {
          200: {
            type: "object",
            properties: { key: text, secretAccessKey: { ...text, description: "Of one in S3." } },
            required: ["key"],
          },
        },
      }),
    },
    "/v1/projects/{project}/certificates/{name}/material": {
      get: operation({
        id: "getCertificateMaterial",
        summary: "For agents: what it serves with.",
        tag: "Certificate",
        parameters: parameters("project", "name"),
        answers: {
          200: {
            type: "object",
            properties: { chain: text, privateKey: text },
            required: ["chain", "privateKey"],
          },
        },
      }),
    },
  };
}
