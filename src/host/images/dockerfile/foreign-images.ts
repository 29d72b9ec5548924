/**
 * Which images of the builder's store a Dockerfile may not name: Strata's own tags there (other projects' guests and
 * builds), and images by their id alone. `strata/NAME` leads to the project's images. What cannot be told is refused. Pure.
 */
import { StrataError } from "../../../core/errors.ts";
import type { BuildText } from "./dockerfile-text.ts";

const variable = /\$\{(\w+)(?::([-+])([^${}]*))?\}|\$(\w+)/g;
const id = /^(sha256:)?[0-9a-f]+$/i;

/** @throws Invalid */
export function refuseForeignImages(text: BuildText): void {
  // The character that continues a line is the Dockerfile's choice: it must be right with both.
  for (const continued of [/\\[ \t]*\n/g, /`[ \t]*\n/g]) check(text, continued);
}

function check({ dockerfile, args }: BuildText, continued: RegExp): void {
  const values = new Map<string, string>();
  const stages = new Set<string>();
  let plain = true;
  let begun = false;
  const expand = (word: string) =>
    word.replace(variable, (_all, name, operator, other, bare) => {
      const value = values.get(name ?? bare) ?? "";
      if (operator === "-") return value || other;
      return operator === "+" ? value && other : value;
    });
  const lines = dockerfile
    .replace(/\r\n/g, "\n")
    .replace(/^[ \t]*(#.*)?\n/gm, "")
    .replace(continued, "")
    .split("\n");
  for (const line of lines) {
    const [, instruction = "", rest = ""] = /^\s*(?:ONBUILD\s+)*(\w+)\s+(.*)$/i.exec(line) ?? [];
    const kind = instruction.toUpperCase();
    if (kind === "ARG" && !begun) {
      plain &&= !rest.includes("\\");
      const words = rest.replace(/"[^"]*"|'[^']*'/g, (quoted) => quoted.slice(1, -1).replace(/[\s=]/g, ""));
      for (const word of words.trim().split(/\s+/)) {
        const [name = "", ...value] = word.split("=");
        values.set(name, Object.hasOwn(args, name) ? (args[name] ?? "") : expand(value.join("=")));
      }
    } else if (kind === "FROM") {
      begun = true;
      const [word = "", as, stage] = rest
        .replace(/--\S+\s+/g, "")
        .trim()
        .split(/\s+/);
      refuse(expand(word), stages, plain || !word.includes("$"));
      if (as?.toUpperCase() === "AS" && stage) stages.add(stage.toLowerCase());
    } else if (kind === "COPY" || kind === "ADD") {
      for (const [, word = ""] of rest.matchAll(/--from=(\S+)/gi))
        if (!/^\d{1,3}$/.test(word)) refuse(expand(word), stages, plain || !word.includes("$"));
    }
  }
}

function refuse(quoted: string, stages: ReadonlySet<string>, plain: boolean): void {
  const name = quoted.replace(/["']/g, "");
  if (stages.has(name.toLowerCase())) return;
  const known = plain && !/[$\\]/.test(name);
  if (known && !/(^|\/)strata\.local(\/|:|$)/i.test(name) && !id.test(name)) return;
  const message = `the Dockerfile names the image ${JSON.stringify(name.slice(0, 200))}; allowed are strata/NAME for an image of the project, the name of a stage, and names of other images as they are, not ids and not strata.local/…`;
  throw new StrataError("Invalid", message);
}
