import type { FastifyInstance } from "fastify";
import { StrataError } from "../core/errors.ts";
import type { Services } from "../services/services.ts";
import { Query } from "./query.ts";

/** What certificates serve with, private key included: for agents only; the routes of all kinds never show it. */
export function installCertificateRoutes(app: FastifyInstance, services: Services): void {
  app.get<{ Params: { project: string; name: string } }>(
    "/v1/projects/:project/certificates/:name/material",
    async (request, reply) => {
      new Query(request.query, []);
      const { project, name } = request.params;
      const material = await services.certificateMaterial(request.principal, { project, name });
      if (!material) {
        throw new StrataError("NotFound", `certificate "${name}" in project "${project}" has no content yet`);
      }
      return reply.header("cache-control", "no-store").send(material);
    },
  );
}
