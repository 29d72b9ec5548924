import type { FastifyInstance } from "fastify";

/** What /v1 stands for: fields are added within it, never changed or taken away. */
export const apiVersion = "v1";

/** What is not about any resource. */
export function installMetaRoutes(app: FastifyInstance, version: string): void {
  app.get("/healthz", async () => ({ status: "ok" }));
  app.get("/v1/version", async () => ({ version, apiVersion }));
  app.get("/v1/openapi.json", async (_request, reply) => {
    // Asked for seldom, and not small: made when asked for and not kept.
    const { openApiText } = await import("./openapi.ts");
    return reply.type("application/json").send(openApiText());
  });
}
