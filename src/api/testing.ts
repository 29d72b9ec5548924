import { mkdtemp, rm } from "node:fs/promises";
import { type IncomingHttpHeaders, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../core/clock.ts";
import { createLogger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import type { Services } from "../services/services.ts";
import { testServices } from "../services/testing.ts";
import { Uploads } from "../services/uploads.ts";
import type { Store } from "../store/store.ts";
import { type Api, createApi } from "./api.ts";

/** An API on a Unix socket in a directory of its own. For tests. */
export interface TestApi {
  api: Api;
  services: Services;
  store: Store;
  socketPath: string;
  dir: string;
  close(): Promise<void>;
}

export async function startTestApi(options: { store?: Store } = {}): Promise<TestApi> {
  const dir = await mkdtemp(join(tmpdir(), "api-"));
  const uploads = await Uploads.open({ dir: join(dir, "uploads"), clock: systemClock, random: systemRandom });
  const parts = { ...options, clock: systemClock, random: systemRandom, uploads };
  const { services, store } = await testServices(parts);
  const api = await createApi({
    services,
    clock: systemClock,
    random: systemRandom,
    logger: createLogger("silent"),
    version: "1.2.3",
  });
  const socketPath = join(dir, "api.sock");
  await api.listenUnix(socketPath);
  return {
    api,
    services,
    store,
    socketPath,
    dir,
    async close() {
      await api.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of any shape
  json: any;
}

/** One request as it is, without the client's help. */
export function raw(
  socketPath: string,
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: string | Buffer } = {},
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const { body } = options;
    const headers: Record<string, string | number> = {
      ...(body === undefined
        ? {}
        : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
      ...options.headers,
    };
    // An empty length stands for a body of unknown length.
    if (headers["content-length"] === "") delete headers["content-length"];
    const outgoing = request({ socketPath, method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = response.headers["content-type"]?.includes("json");
        const json = isJson && text !== "" ? JSON.parse(text) : undefined;
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
      });
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}
