/**
 * The order of keys: by their UTF-8 bytes, which is the order of code points. JavaScript's own `<` compares UTF-16
 * units and puts U+E000–U+FFFF after what needs surrogate pairs. Arguments are well-formed text.
 */

/** Negative, zero or positive, as Array.prototype.sort wants it. */
export function compareKeys(a: string, b: string): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const left = a.charCodeAt(i);
    const right = b.charCodeAt(i);
    if (left !== right) return codePointRank(left) - codePointRank(right);
  }
  return a.length - b.length;
}

/** Moves the surrogates (0xd800–0xdfff) behind all other units, where the code points they stand for belong. */
function codePointRank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}

/**
 * The smallest text greater than every key with this prefix; undefined when there is none (the empty prefix, or
 * nothing but U+10FFFF).
 */
export function prefixEnd(prefix: string): string | undefined {
  const points = Array.from(prefix);
  for (let last = points.pop(); last !== undefined; last = points.pop()) {
    const point = last.codePointAt(0) ?? 0;
    if (point === 0x10ffff) continue;
    return points.join("") + String.fromCodePoint(point === 0xd7ff ? 0xe000 : point + 1);
  }
  return undefined;
}

/** The smallest text greater than this key. */
export function keySuccessor(key: string): string {
  return `${key}\u0000`;
}
