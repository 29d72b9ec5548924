/**
 * Lists of checksums as distributions publish them: lines of `DIGITS  FILE` or `DIGITS *FILE` (coreutils), or of
 * `SHA256 (FILE) = DIGITS` (BSD), with other lines between, such as a signature's. Pure.
 */
export interface Checksum {
  algorithm: "sha256" | "sha512";
  /** Hexadecimal, small letters. */
  digits: string;
}

const algorithmsByLength: Record<number, Checksum["algorithm"]> = { 64: "sha256", 128: "sha512" };

/** Of that very file; undefined when the list has none, or several that differ. */
export function checksumOf(list: string, file: string): Checksum | undefined {
  const found = new Map<string, Checksum>();
  for (const line of list.split(/\r?\n/)) {
    const plain = /^([0-9a-f]{64}|[0-9a-f]{128}) [ *](.+)$/i.exec(line);
    const tagged = /^SHA(?:256|512) \((.+)\) = ([0-9a-f]{64}|[0-9a-f]{128})$/i.exec(line);
    const [digits, name] = plain ? [plain[1], plain[2]] : [tagged?.[2], tagged?.[1]];
    if (digits === undefined || name?.replace(/^\.\//, "") !== file) continue;
    const algorithm = algorithmsByLength[digits.length];
    if (algorithm) found.set(digits.toLowerCase(), { algorithm, digits: digits.toLowerCase() });
  }
  return found.size === 1 ? [...found.values()][0] : undefined;
}
