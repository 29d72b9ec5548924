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

/** The inverse of encodeBase32, for what it made of whole bytes. Characters outside of the alphabet count as 0. */
export function decodeBase32(text: string): Uint8Array {
  const bytes = new Uint8Array(Math.floor((text.length * 5) / 8));
  let bits = 0;
  let value = 0;
  let length = 0;
  for (const character of text) {
    value = ((value << 5) | Math.max(0, alphabet.indexOf(character))) & 0xfff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes[length++] = (value >>> bits) & 0xff;
  }
  return bytes;
}

/**
 * A uid as clients of EC2 know ids: `i-0123456789abcdef0`. Its 17 digits are the first 68 of the uid's 80 bits, so the
 * first 13 characters of the uid can be had back from it.
 */
export function prefixedHexId(prefix: string, uid: Uid): string {
  return `${prefix}-${Buffer.from(decodeBase32(uid)).toString("hex").slice(0, 17)}`;
}

/**
 * Names are DNS labels (RFC 1123, starting with a letter): they become host names, so nothing that a shell, a path
 * or a DNS server could read differently is ever accepted.
 */
export const namePattern = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
export const nameRule = "1 to 63 of a-z, 0-9 and '-', starting with a letter, not ending with '-'";
