import type { FastifyInstance } from "fastify";
import type { Services } from "../services/services.ts";
import { Query } from "./query.ts";

/** What opens a backup repository: for agents only; the routes of all kinds never show it. */
export function installBackupRoutes(app: FastifyInstance, services: Services): void {
  app.get<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/backup-repositories/:name/secrets",
    async (request, reply) => {
      new Query(request.query, []);
      const { project, name } = request.params;
      const secrets = await services.repositorySecrets(request.principal, { project, name });
      return reply.header("cache-control", "no-store").send(secrets);
    },
  );
}
