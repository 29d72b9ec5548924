import type { Random } from "./random.ts";

/** Identity of one resource for all time: 16 characters of lower-case base 32 (80 random bits). */
export type Uid = string & { readonly brand: "Uid" };

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"; // Crockford: no i, l, o, u
const uidPattern = /^[0-9a-hjkmnp-tv-z]{16}$/;

export function newUid(random: Random): Uid {
  return encodeBase32(random.bytes(10)) as Uid;
}

export function isUid(text: string): text is Uid {
  return uidPattern.test(text);
}

/** The first 8 characters: what tables show and commands accept where it is unambiguous. */
export function shortId(uid: Uid): string {
  return uid.slice(0, 8);
}

/** Crockford base 32, lower case, no padding; 5 bytes give 8 characters. */
export function encodeBase32(bytes: Uint8Array): string {
  let bits = 0;
  let value = 0;
  let text = "";
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += alphabet[(value >>> bits) & 31];
    }
  }
  return text;
}

/**
 * Names are DNS labels (RFC 1123, starting with a letter): they become host names, so nothing that a shell, a path
 * or a DNS server could read differently is ever accepted.
 */
export const namePattern = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
export const nameRule = "1 to 63 of a-z, 0-9 and '-', starting with a letter, not ending with '-'";
