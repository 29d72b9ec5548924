import type { FastifyInstance } from "fastify";
import { tokenKind } from "../kinds/token.ts";
import type { Services } from "../services/services.ts";
import { Query } from "./query.ts";
import { draftOf } from "./resource-routes.ts";

/** Tokens are made here and not by the routes of all kinds, because the answer tells the secret, this once. */
export function installTokenRoutes(app: FastifyInstance, services: Services): void {
  app.post(`/v1/${tokenKind.plural}`, async (request, reply) => {
    new Query(request.query, []);
    const issued = await services.tokens.issue(request.principal, draftOf(tokenKind, request.body, {}));
    const { name } = issued.token.metadata;
    return reply.code(201).header("location", `/v1/${tokenKind.plural}/${name}`).send(issued);
  });
}
