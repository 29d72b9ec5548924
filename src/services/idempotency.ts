import { createHash } from "node:crypto";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { canonicalJson, type Json } from "../core/json.ts";
import { type Store, storeLimits, type Write } from "../store/store.ts";
import type { Principal } from "./principal.ts";

/**
 * Remembers which resource a create with an Idempotency-Key made, in the commit that makes it, so that a client which
 * never saw the answer can ask again. Keys belong to the principal and lapse after a day.
 */

/** How long a key is remembered. */
export const idempotencyTtlMs = 24 * 60 * 60 * 1000;
const idempotencyKeyRule = "1 to 200 printable ASCII characters";

const prefix = "/idempotency/";

interface Memory {
  bodyHash: string;
  resourceKey: string;
  uid: string;
  expiresAt: number;
}

export interface IdempotentCreate {
  /** The resource that the first request made; undefined for a first request. */
  find(): Promise<{ key: string; uid: string } | undefined>;
  /** For the commit that makes the resource. */
  write(resourceKey: string, uid: string): Write;
}

/** @throws Invalid when the key itself is malformed. */
export function idempotentCreate(
  store: Store,
  clock: Clock,
  principal: Principal,
  idempotencyKey: string,
  body: Json,
): IdempotentCreate {
  if (!/^[\x20-\x7e]{1,200}$/.test(idempotencyKey)) {
    throw new StrataError("Invalid", `the Idempotency-Key is malformed: use ${idempotencyKeyRule}`);
  }
  const owner = canonicalJson([principal.project ?? null, principal.name, idempotencyKey]);
  const key = `${prefix}${sha256(owner)}`;
  const bodyHash = sha256(canonicalJson(body));
  let stale = 0;
  return {
    async find() {
      const entry = await store.get(key);
      const memory = entry?.value as unknown as Memory | undefined;
      stale = entry?.revision ?? 0;
      if (!memory || memory.expiresAt <= clock.now()) return undefined;
      if (memory.bodyHash !== bodyHash) {
        throw new StrataError(
          "Conflict",
          "this Idempotency-Key was used with another request before; use a new key for a new request",
        );
      }
      return { key: memory.resourceKey, uid: memory.uid };
    },
    write(resourceKey, uid) {
      const memory = { bodyHash, resourceKey, uid, expiresAt: clock.now() + idempotencyTtlMs };
      return { put: key, value: memory, ifRevision: stale };
    },
  };
}

/** Forgets the keys that have lapsed. */
export async function pruneIdempotencyKeys(store: Store, clock: Clock): Promise<void> {
  let after: string | undefined;
  do {
    const page = await store.list(prefix, {
      limit: storeLimits.pageEntries,
      ...(after === undefined ? {} : { after }),
    });
    const lapsed = page.entries.filter(
      (entry) => (entry.value as unknown as Memory).expiresAt <= clock.now(),
    );
    for (let i = 0; i < lapsed.length; i += storeLimits.writesPerCommit) {
      const batch = lapsed.slice(i, i + storeLimits.writesPerCommit);
      await store.commit(batch.map((entry) => ({ delete: entry.key })));
    }
    after = page.next;
  } while (after !== undefined);
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
