import type { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import { StrataError } from "../core/errors.ts";
import { requireOperator, requireWriter } from "../services/principal.ts";
import type { Uploads } from "../services/uploads.ts";
import { Query } from "./query.ts";

/** Files for images: taken from whoever may write, given to agents. They pass through; none is held in memory. */
export async function installUploadRoutes(app: FastifyInstance, uploads: Uploads | undefined): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (_request, payload, done) => done(null, payload));
    scope.post("/v1/uploads", async (request, reply) => {
      new Query(request.query, []);
      requireWriter(request.principal, "upload files");
      const length = request.headers["content-length"];
      const announced = length === undefined ? undefined : Number(length);
      const data = request.body as Readable | undefined;
      if (!data) throw new StrataError("Invalid", "an upload needs a body: the file");
      try {
        return reply.code(201).send(await requireUploads(uploads).receive(data, announced));
      } catch (error) {
        // What is still coming is dropped with the connection, once the answer is out.
        reply.header("connection", "close");
        data.resume();
        throw error;
      }
    });
  });
  app.get<{ Params: { id: string } }>("/v1/uploads/:id", async (request, reply) => {
    requireOperator(request.principal, "read uploads");
    const { data, sizeBytes } = await requireUploads(uploads).read(request.params.id);
    return reply.header("content-length", sizeBytes).type("application/octet-stream").send(data);
  });
  app.delete<{ Params: { id: string } }>("/v1/uploads/:id", async (request, reply) => {
    requireOperator(request.principal, "remove uploads");
    await requireUploads(uploads).remove(request.params.id);
    return reply.code(204).send();
  });
}

function requireUploads(uploads: Uploads | undefined): Uploads {
  if (uploads) return uploads;
  throw new StrataError("Unsupported", "this daemon takes no uploads");
}
