import type { Socket } from "node:net";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Clock } from "../core/clock.ts";
import { hasCode, StrataError } from "../core/errors.ts";
import { type Principal, systemPrincipal } from "../services/principal.ts";
import type { Services } from "../services/services.ts";

/**
 * Who is asking. Whoever may open the Unix socket (mode 0600) is root, and so is Strata itself; on any other listener
 * a bearer token decides. A connection is trusted only when the Unix listener itself accepted it: that is recorded
 * where it is accepted, and nothing in a request can claim it.
 */

declare module "fastify" {
  interface FastifyRequest {
    principal: Principal;
    /** @throws Unauthenticated when the credentials of the request hold no more. For long streams. */
    reauthenticate: () => Promise<void>;
  }
}

/** Wrong tokens from one address within one window before its requests have to wait. */
const failureLimit = 20;
const failureWindowMs = 10_000;
const failurePauseMs = 1_000;
/** Addresses watched at once. */
const maxAddresses = 10_000;

const openPaths: ReadonlySet<string> = new Set(["/healthz"]);

export class TrustedSockets {
  readonly #sockets = new WeakSet<Socket>();

  add(socket: Socket): void {
    this.#sockets.add(socket);
  }

  has(socket: Socket): boolean {
    return this.#sockets.has(socket);
  }
}

export function installAuthentication(
  app: FastifyInstance,
  parts: { services: Services; trusted: TrustedSockets; clock: Clock },
): void {
  const { services, trusted, clock } = parts;
  const failures = new FailureLimit(clock);
  const identify = async (request: FastifyRequest): Promise<Principal> => {
    if (trusted.has(request.raw.socket)) return systemPrincipal;
    return services.tokens.authenticate(bearerToken(request.headers.authorization));
  };
  app.decorateRequest("principal");
  app.decorateRequest("reauthenticate");
  app.addHook("onRequest", async (request, reply) => {
    if (openPaths.has(request.routeOptions.url ?? "")) return;
    if (!trusted.has(request.raw.socket)) await failures.pause(request.ip);
    try {
      request.principal = await identify(request);
    } catch (error) {
      if (hasCode(error, "Unauthenticated")) {
        if (request.headers.authorization !== undefined) failures.count(request.ip);
        reply.header("www-authenticate", 'Bearer realm="strata"');
      }
      throw error;
    }
    request.reauthenticate = async () => {
      await identify(request);
    };
  });
}

/** The text after `Bearer`; an empty one is as wrong as any other. */
function bearerToken(header: string | undefined): string {
  if (header === undefined) {
    throw new StrataError(
      "Unauthenticated",
      "this needs a token: send the header Authorization: Bearer TOKEN",
    );
  }
  return /^Bearer +([^\s]{1,200})$/i.exec(header)?.[1] ?? "";
}

/**
 * Slows down guessing: beyond the budget every request from that address waits before its token is looked at. Right
 * tokens still work then, so nobody can lock others out by sending wrong ones.
 */
class FailureLimit {
  readonly #clock: Clock;
  #windowStart = 0;
  readonly #failures = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  count(address: string): void {
    this.#roll();
    if (this.#failures.size >= maxAddresses && !this.#failures.has(address)) return;
    this.#failures.set(address, (this.#failures.get(address) ?? 0) + 1);
  }

  async pause(address: string): Promise<void> {
    this.#roll();
    if ((this.#failures.get(address) ?? 0) < failureLimit) return;
    await this.#clock.sleep(failurePauseMs);
  }

  #roll(): void {
    const now = this.#clock.monotonicMs();
    if (now - this.#windowStart < failureWindowMs) return;
    this.#windowStart = now;
    this.#failures.clear();
  }
}
