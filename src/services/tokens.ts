import { createHash, timingSafeEqual } from "node:crypto";
import { toTimestamp } from "../core/clock.ts";
import { type FieldError, StrataError } from "../core/errors.ts";
import { encodeBase32 } from "../core/ids.ts";
import { isJsonObject } from "../core/json.ts";
import { projectKind } from "../kinds/project.ts";
import { type Token, tokenKind } from "../kinds/token.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import type { Principal } from "./principal.ts";
import { describe } from "./refs.ts";
import type { Draft, Resources } from "./resources.ts";

/**
 * Tokens open the HTTPS API. A secret is 280 random bits, shown once; only its SHA-256 is stored, twice: in the token,
 * and as the key `/token-index/HASH` under which the token is found. What an attacker sends reaches the store only as
 * a hash, so the time of the search tells nothing.
 */

const secretPrefix = "strata_";
/** A multiple of 5, so that base 32 leaves no bit out. */
const secretBytes = 35;
const secretPattern = /^strata_[0-9a-hjkmnp-tv-z]{56}$/;

type Hooks = KindHooks<Token["spec"], Token["status"]>;

export function tokenHooks(): Hooks {
  return {
    async admit(token, world, action) {
      const errors = await checkToken(token, world);
      if (errors.length > 0) throw invalid(action, errors);
      const value = { name: token.metadata.name };
      return { writes: [{ put: indexKey(token.spec.secretHash), value, ifRevision: 0 }] };
    },
    async removal(token) {
      return [{ delete: indexKey(token.spec.secretHash) }];
    },
    // Useless without the secret, and nobody's business all the same.
    present: (token) => ({ ...token, spec: { ...token.spec, secretHash: hiddenHash } }),
  };
}

/** Shown instead of the real hash. */
const hiddenHash = "0".repeat(64);

export class Tokens {
  readonly #world: World;
  readonly #resources: Resources;

  constructor(world: World, resources: Resources) {
    this.#world = world;
    this.#resources = resources;
  }

  /**
   * Makes a token. The secret is in this answer and nowhere else.
   * @throws Forbidden beyond what the principal may do itself; Invalid; AlreadyExists.
   */
  async issue(principal: Principal, draft: Draft): Promise<{ token: Token; secret: string }> {
    const secret = `${secretPrefix}${encodeBase32(this.#world.random.bytes(secretBytes))}`;
    const written = isJsonObject(draft.spec) ? draft.spec : {};
    if (written.secretHash !== undefined && written.secretHash !== hiddenHash) {
      throw invalid(`create ${describe(tokenKind, draft)}`, [
        { path: "spec.secretHash", message: "cannot be chosen: Strata makes the secret" },
      ]);
    }
    const spec = { ...written, secretHash: hashOf(secret) };
    const token = await this.#resources.create(principal, tokenKind, { ...draft, spec });
    return { token, secret };
  }

  /**
   * Whose secret it is.
   * @throws Unauthenticated, in the same words whether it is malformed, unknown, expired or revoked.
   */
  async authenticate(secret: string): Promise<Principal> {
    const token = secretPattern.test(secret) ? await this.#find(hashOf(secret)) : undefined;
    if (!token) {
      throw new StrataError(
        "Unauthenticated",
        "the token is not valid: it is unknown, expired or revoked; ask an administrator for a new one",
      );
    }
    const { role, project } = token.spec;
    const name = `token:${token.metadata.name}`;
    return project === undefined ? { name, role } : { name, role, project };
  }

  async #find(hash: string): Promise<Token | undefined> {
    const index = await this.#world.store.get(indexKey(hash));
    if (!index) return undefined;
    const { name } = index.value as { name: string };
    const token = await this.#world.find(tokenKind, { name });
    if (!token || token.metadata.deletedAt !== undefined) return undefined;
    if (!timingSafeEqual(Buffer.from(token.spec.secretHash), Buffer.from(hash))) return undefined;
    const { expiresAt } = token.spec;
    return expiresAt !== undefined && expiresAt <= toTimestamp(this.#world.clock.now()) ? undefined : token;
  }
}

async function checkToken(token: Token, world: World): Promise<FieldError[]> {
  const { role, project, expiresAt } = token.spec;
  const errors: FieldError[] = [];
  if (project === undefined && role !== "admin") {
    errors.push({ path: "spec.project", message: `is required for the role ${role}` });
  }
  if (project !== undefined && !(await world.find(projectKind, { name: project }))) {
    errors.push({ path: "spec.project", message: `names "${project}", which does not exist` });
  }
  if (expiresAt !== undefined && Date.parse(expiresAt) <= world.clock.now()) {
    errors.push({ path: "spec.expiresAt", message: "is in the past" });
  }
  return errors;
}

function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

function indexKey(hash: string): string {
  return `/token-index/${hash}`;
}
