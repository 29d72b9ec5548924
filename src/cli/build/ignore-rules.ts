/**
 * `.dockerignore` as Docker reads it: a pattern a line in the syntax of Go's filepath.Match with `**`, relative to the
 * context; `!` takes an exception back in; the last one that matches a path, or a directory above it, decides. Pure.
 */

export interface IgnoreRules {
  ignores(path: string): boolean;
  /** May something below this directory be taken back in? Then it has to be looked into. */
  hasExceptions: boolean;
}

interface Rule {
  exception: boolean;
  pattern: RegExp;
}

export function parseIgnoreRules(text: string): IgnoreRules {
  const rules = text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => !line.startsWith("#"))
    .map((line) => line.trim())
    .filter((line) => line !== "" && line !== "!")
    .map(parseRule);
  return {
    ignores(path) {
      let ignored = false;
      for (const { exception, pattern } of rules) {
        if (exception === ignored && pattern.test(path)) ignored = !exception;
      }
      return ignored;
    },
    hasExceptions: rules.some(({ exception }) => exception),
  };
}

function parseRule(line: string): Rule {
  const exception = line.startsWith("!");
  const names = (exception ? line.slice(1).trim() : line)
    .split("/")
    .filter((name) => name !== "" && name !== ".");
  const plain: string[] = [];
  for (const name of names) {
    if (name === "..") plain.pop();
    else plain.push(name);
  }
  return { exception, pattern: new RegExp(`^${translate(plain)}(?:/.*)?$`, "s") };
}

/** `**` stands for any number of directories, none included. */
function translate(names: readonly string[]): string {
  let text = "";
  for (const [index, name] of names.entries()) {
    const last = index === names.length - 1;
    if (name === "**") text += last ? ".*" : "(?:.*/)?";
    else text += translateName(name) + (last ? "" : "/");
  }
  return text === "" ? ".*" : text;
}

function translateName(name: string): string {
  return name.replace(/\\.|\[[^\]]+\]|\*+|\?|[^\\[*?]/gs, (part) => {
    if (part.startsWith("\\")) return escapeText(part.slice(1));
    if (part.startsWith("[")) return part.replace(/^\[\^/, "[^/").replaceAll("\\", "\\\\");
    if (part.startsWith("**")) return ".*";
    if (part === "*") return "[^/]*";
    if (part === "?") return "[^/]";
    return escapeText(part);
  });
}

function escapeText(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
