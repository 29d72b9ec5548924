/**
 * The walls of the house as data and as a pure check: who may import whom, what only `core` may do, how long a file may
 * be. docs/architecture.md says why.
 */
import { posix } from "node:path";
import { stripSource } from "./source-text.ts";

export interface Problem {
  path: string;
  line: number;
  message: string;
}

/**
 * Rooms a room may import from, besides itself and `core`. A room is a folder of `src`; `store` and `drivers` are the
 * contracts, `store/*` and `drivers/*` their implementations.
 */
const walls: Readonly<Record<string, readonly string[]>> = {
  core: [],
  kinds: [],
  store: [],
  "store/*": ["store"],
  placement: ["kinds"],
  reconcile: [],
  // Time series of what instances, balancers and hosts do: the contract, and implementations below it.
  metrics: ["kinds"],
  "metrics/*": ["metrics", "kinds"],
  services: ["kinds", "store", "metrics"],
  api: ["services", "kinds", "metrics"],
  facades: ["services", "kinds"],
  controllers: ["kinds", "store", "reconcile", "placement", "metrics"],
  // What drivers and host tell one another: a guest's root is made by the host and used by the driver.
  drivers: ["kinds"],
  host: ["kinds", "drivers"],
  "drivers/*": ["drivers", "host", "kinds"],
  client: ["kinds"],
  agent: ["kinds", "reconcile", "client", "drivers", "host"],
  cli: ["client", "kinds"],
};

/** The mains and what runs beside the product: they wire concrete parts together. */
const everything: ReadonlySet<string> = new Set(["bin"]);

/** May import anything: tests and what tests are made of. */
const testFile = /(?:\.test|(?:^|\/)testing[a-z-]*|(?:^|\/)conformance[a-z-]*)\.ts$/;

const bans: readonly { pattern: RegExp; instead: string }[] = [
  { pattern: /\bDate\.now\b/g, instead: "Clock.now" },
  { pattern: /\bnew Date\b/g, instead: "toTimestamp and fromTimestamp" },
  { pattern: /\bMath\.random\b/g, instead: "Random" },
  { pattern: /\bperformance\.now\b/g, instead: "Clock.monotonicMs" },
  { pattern: /\bset(?:Timeout|Interval)\s*\(/g, instead: "Clock.sleep or Clock.after" },
  { pattern: /\bimport\.meta\.url\b/g, instead: "ownFile" },
];

/** Files that may use timers of their own, and why. The list only shrinks. */
const timersAllowed: Readonly<Record<string, string>> = {
  "src/host/run.ts": "kills a program that exceeds its time, whatever the clock of a test says",
};

export const maxLines = 500;
/** Files that may be longer, and why. The list only shrinks. */
const longFiles: Readonly<Record<string, string>> = {};

/** All that is wrong with one file. `path` is relative to the repository, with forward slashes. */
export function checkFile(path: string, source: string): Problem[] {
  const { withoutComments, codeOnly } = stripSource(source);
  return [...checkImports(path, withoutComments), ...checkBans(path, codeOnly), ...checkLength(path, source)];
}

const importPattern =
  /(?:^|[\s;}])(?:import|export)\b[^"';()]*?\bfrom\s*"([^"\n]+)"|\bimport\s*\(\s*"([^"\n]+)"\s*\)|^\s*import\s+"([^"\n]+)"/gm;

function checkImports(path: string, text: string): Problem[] {
  const room = roomOf(path);
  if (room === undefined || everything.has(room) || testFile.test(path)) return [];
  const problems: Problem[] = [];
  for (const match of text.matchAll(importPattern)) {
    const target = match[1] ?? match[2] ?? match[3] ?? "";
    if (!target.startsWith(".")) continue;
    const targetPath = posix.join(posix.dirname(path), target);
    const targetRoom = roomOf(targetPath);
    const message = wallBetween(room, targetRoom, targetPath);
    if (message === undefined) continue;
    const offset = match.index + match[0].lastIndexOf(target);
    problems.push({ path, line: lineAt(text, offset), message });
  }
  return problems;
}

function wallBetween(room: string, target: string | undefined, targetPath: string): string | undefined {
  if (target === undefined) return `${room} must not import ${targetPath}, which is outside of src`;
  if (target === room || target === "core") return undefined;
  const allowed = walls[room] ?? walls[`${room.split("/")[0]}/*`];
  if (!allowed) return `${room} is no known room: add it to the table in tools/layers.ts`;
  if (allowed.includes(target)) return undefined;
  return `${room} must not import ${target} (it may: ${["core", ...allowed].join(", ")})`;
}

/** `store/sqlite` for src/store/sqlite/x.ts, `store` for src/store/x.ts; undefined outside of src. */
function roomOf(path: string): string | undefined {
  const [top, room, sub, ...rest] = path.split("/");
  if (top !== "src" || room === undefined || sub === undefined) return undefined;
  return rest.length > 0 && `${room}/*` in walls ? `${room}/${sub}` : room;
}

function checkBans(path: string, code: string): Problem[] {
  const applies = /^(?:src|sim)\//.test(path) && !path.startsWith("src/core/") && !path.endsWith(".test.ts");
  if (!applies || path in timersAllowed) return [];
  return bans.flatMap(({ pattern, instead }) =>
    [...code.matchAll(pattern)].map((match) => ({
      path,
      line: lineAt(code, match.index),
      message: `${match[0].replace(/\s*\($/, "")} is for src/core only: use ${instead}`,
    })),
  );
}

function checkLength(path: string, source: string): Problem[] {
  const lines = source.split("\n").length - (source.endsWith("\n") ? 1 : 0);
  if (lines <= maxLines || path in longFiles) return [];
  return [{ path, line: maxLines + 1, message: `has ${lines} lines; split it (at most ${maxLines})` }];
}

function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
