import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "../../core/clock.ts";
import type { Random } from "../../core/random.ts";

/** As EC2 has it. */
export const tokenTtlSeconds = { min: 1, max: 21_600 } as const;

const version = 1;
const nonceBytes = 12;
const macBytes = 24;
/** Version, expiry in seconds since the epoch (5 bytes), nonce. */
const bodyBytes = 1 + 5 + nonceBytes;
const tokenPattern = /^[A-Za-z0-9_-]{56}$/;

/**
 * Session tokens of the metadata service. Nothing is kept of them: a token says when it ends and is signed for one
 * instance (HMAC-SHA-256, cut to 192 bits), so that a guest can neither fill a memory with them nor use another's.
 */
export class SessionTokens {
  readonly #key: Uint8Array;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(options: { key: Uint8Array; clock: Clock; random: Random }) {
    this.#key = options.key;
    this.#clock = options.clock;
    this.#random = options.random;
  }

  issue(instanceUid: string, ttlSeconds: number): string {
    const body = Buffer.alloc(bodyBytes);
    body.writeUInt8(version, 0);
    body.writeUIntBE(Math.ceil(this.#clock.now() / 1000) + ttlSeconds, 1, 5);
    body.set(this.#random.bytes(nonceBytes), 6);
    return Buffer.concat([body, this.#sign(instanceUid, body)]).toString("base64url");
  }

  /** Seconds that it stays valid, at least 1; undefined when it is not (any more) one of this instance. */
  secondsLeft(instanceUid: string, token: string): number | undefined {
    if (!tokenPattern.test(token)) return undefined;
    const bytes = Buffer.from(token, "base64url");
    const body = bytes.subarray(0, bodyBytes);
    if (!timingSafeEqual(bytes.subarray(bodyBytes), this.#sign(instanceUid, body))) return undefined;
    if (body[0] !== version) return undefined;
    const left = Math.ceil(body.readUIntBE(1, 5) - this.#clock.now() / 1000);
    return left > 0 ? Math.min(left, tokenTtlSeconds.max) : undefined;
  }

  #sign(instanceUid: string, body: Uint8Array): Buffer {
    const mac = createHmac("sha256", this.#key).update(instanceUid).update("\0").update(body);
    return mac.digest().subarray(0, macBytes);
  }
}
