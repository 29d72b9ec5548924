import { fromTimestamp } from "../../core/clock.ts";
import { hasCode } from "../../core/errors.ts";
import { type Token, tokenKind } from "../../kinds/token.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";

/** Removes tokens that have expired. They stopped opening anything the moment they did. */
export function createTokenExpiry({
  caches,
  verbs,
}: ControllerContext): Reconciler<Token | undefined, Token, never> {
  const { tokens } = caches;
  return {
    name: "token-expiry",
    watches: [{ name: "tokens", keys: (signal) => tokens.watchKeys(signal) }],
    observe: async (key) => tokens.get(key),
    plan(token, now) {
      const expiresAt = fromTimestamp(token?.spec.expiresAt ?? "");
      if (!token || expiresAt === undefined) return { status: undefined, actions: [] };
      if (expiresAt > now) return { status: undefined, actions: [], recheckAfterMs: expiresAt - now };
      return { status: undefined, actions: [token] };
    },
    async execute(token) {
      try {
        await verbs.delete(tokenKind, { name: token.metadata.name });
      } catch (error) {
        if (!hasCode(error, "NotFound")) throw error;
      }
      tokens.delete(tokens.keyOf(token), token.metadata.uid);
    },
  };
}
