/**
 * Just enough of TypeScript's lexical grammar to tell code from comments and texts, so that a rule about code is not
 * set off by a sentence about it.
 */

export interface Stripped {
  /** Comments are blanks. Positions and lines are as in the source. */
  withoutComments: string;
  /** Comments and the insides of strings, templates and regular expressions are blanks. */
  codeOnly: string;
}

/** Before a `/` these mean that a regular expression begins, not a division. */
const beforeRegex = /(?:^|[([{=,;:!&|?+\-*%<>~^}]|\b(?:return|typeof|case|in|of|yield|await|else|do))\s*$/;

export function stripSource(source: string): Stripped {
  const plain = [...source];
  const code = [...source];
  const blank = (target: string[], from: number, to: number) => {
    for (let i = from; i < to; i++) if (target[i] !== "\n") target[i] = " ";
  };
  /** Depths of braces at which a template goes on. */
  const templates: number[] = [];
  let depth = 0;
  let at = 0;
  while (at < plain.length) {
    const [char, next] = [plain[at], plain[at + 1]];
    if (char === "/" && (next === "/" || next === "*")) {
      const end = next === "/" ? indexOrEnd(plain, "\n", at) : afterComment(plain, at);
      blank(code, at, end);
      blank(plain, at, end);
      at = end;
    } else if (char === '"' || char === "'") {
      const end = afterQuoted(plain, at, char);
      blank(code, at + 1, end - 1);
      at = end;
    } else if (char === "/" && beforeRegex.test(code.slice(Math.max(0, at - 40), at).join(""))) {
      const end = afterRegex(plain, at);
      blank(code, at + 1, end - 1);
      at = end;
    } else if (char === "`" || (char === "}" && templates.at(-1) === depth)) {
      if (char === "}") templates.pop();
      const { end, opens } = afterTemplatePart(plain, at + 1);
      blank(code, at + 1, end - (opens ? 2 : 1));
      if (opens) templates.push(depth);
      at = end;
    } else {
      if (char === "{") depth++;
      else if (char === "}") depth--;
      at++;
    }
  }
  return { withoutComments: plain.join(""), codeOnly: code.join("") };
}

function indexOrEnd(text: string[], char: string, from: number): number {
  const index = text.indexOf(char, from);
  return index < 0 ? text.length : index;
}

function afterComment(text: string[], from: number): number {
  for (let i = from + 2; i < text.length; i++) if (text[i] === "*" && text[i + 1] === "/") return i + 2;
  return text.length;
}

function afterQuoted(text: string[], from: number, quote: string): number {
  for (let i = from + 1; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === quote) return i + 1;
    else if (text[i] === "\n") return i;
  }
  return text.length;
}

function afterRegex(text: string[], from: number): number {
  let inClass = false;
  for (let i = from + 1; i < text.length; i++) {
    const char = text[i];
    if (char === "\\") i++;
    else if (char === "[") inClass = true;
    else if (char === "]") inClass = false;
    else if (char === "\n" || (char === "/" && !inClass)) return i + 1;
  }
  return text.length;
}

/** `opens`: the part ends with `${`. */
function afterTemplatePart(text: string[], from: number): { end: number; opens: boolean } {
  for (let i = from; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "`") return { end: i + 1, opens: false };
    else if (text[i] === "$" && text[i + 1] === "{") return { end: i + 2, opens: true };
  }
  return { end: text.length, opens: false };
}
