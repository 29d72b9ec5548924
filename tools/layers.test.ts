import { expect, test } from "vitest";
import { checkFile, maxLines } from "./layers.ts";
import { stripSource } from "./source-text.ts";

const check = (path: string, source: string) =>
  checkFile(path, source).map(({ line, message }) => `${line}: ${message}`);

test.each([
  ["src/agent/a.ts", 'import { x } from "../store/store.ts";', "agent must not import store"],
  [
    "src/agent/instances/a.ts",
    'import type { X } from "../../services/x.ts";',
    "agent must not import services",
  ],
  ["src/kinds/a.ts", 'export { x } from "../store/store.ts";', "kinds must not import store"],
  ["src/core/a.ts", 'import { x } from "../kinds/x.ts";', "core must not import kinds"],
  [
    "src/store/sqlite/a.ts",
    'import { x } from "../memory/x.ts";',
    "store/sqlite must not import store/memory",
  ],
  ["src/store/a.ts", 'import { x } from "./memory/x.ts";', "store must not import store/memory"],
  ["src/api/a.ts", 'const x = await import("../store/store.ts");', "api must not import store"],
  ["src/cli/a.ts", 'import "../bin/x.ts";', "cli must not import bin"],
  ["src/cli/a.ts", 'import {\n  x,\n} from "../api/x.ts";', "3: cli must not import api"],
  ["src/agent/a.ts", 'import { x } from "../../sim/x.ts";', "outside of src"],
  ["src/agent/a.ts", 'import { x } from "../drivers/qemu/x.ts";', "agent must not import drivers/qemu"],
  ["src/attic/a.ts", 'import { x } from "../kinds/x.ts";', "attic is no known room"],
])("%s with %j: %s", (path, source, message) => {
  expect(check(path, source)).toEqual([expect.stringContaining(message)]);
});

test.each([
  [
    "src/agent/a.ts",
    'import { x } from "../drivers/driver.ts";\nimport { y } from "../host/disks/disks.ts";',
  ],
  [
    "src/agent/instances/a.ts",
    'import { x } from "../agent-context.ts";\nimport { y } from "../../core/clock.ts";',
  ],
  ["src/store/sqlite/a.ts", 'import { x } from "../store.ts";'],
  ["src/bin/a.ts", 'import { x } from "../store/sqlite/x.ts";'],
  ["src/agent/a.test.ts", 'import { x } from "../store/store.ts";'],
  ["src/services/testing.ts", 'import { x } from "../store/memory/x.ts";'],
  ["src/agent/a.ts", '// import { x } from "../store/store.ts";'],
  ["src/agent/a.ts", 'import { readFile } from "node:fs";'],
])("%s may have %j", (path, source) => {
  expect(check(path, source)).toEqual([]);
});

test.each([
  ["Date.now()", "Date.now"],
  ["new Date()", "new Date"],
  ["Math.random()", "Math.random"],
  ["setTimeout(f, 1)", "setTimeout"],
  ["setInterval (f, 1)", "setInterval"],
  ["performance.now()", "performance.now"],
  ["f(import.meta.url)", "import.meta.url"],
])("%s is for core and tests only", (code, name) => {
  const source = `// fine: ${code}\nconst text = "${code}";\nconst value = \`\${${code}} ${code}\`;\n`;
  expect(check("src/agent/a.ts", source)).toEqual([
    expect.stringContaining(`3: ${name} is for src/core only`),
  ]);
  expect(check("src/core/a.ts", source)).toEqual([]);
  expect(check("src/agent/a.test.ts", source)).toEqual([]);
});

test("a file has an end", () => {
  expect(check("e2e/a.ts", "x;\n".repeat(maxLines))).toEqual([]);
  expect(check("e2e/a.ts", "x;\n".repeat(maxLines + 1))).toEqual([expect.stringContaining("501 lines")]);
});

test("code is told from comments, strings, templates and regular expressions", () => {
  const source = [
    'const a = "it\'s // no comment"; // a comment with "quotes"',
    "const b = /[/\"']+/.test(a) ? a / 2 / 3 : `x $\u007B{ y: `$\u007B1}` }.y} z`; /* more",
    "of it */ const c = 'done';",
  ].join("\n");
  const { withoutComments, codeOnly } = stripSource(source);
  expect(withoutComments).toContain("it's // no comment");
  expect(withoutComments).not.toContain("a comment");
  expect(withoutComments).not.toContain("of it");
  expect(codeOnly).not.toContain("no comment");
  expect(codeOnly).toContain("a / 2 / 3");
  expect(codeOnly).toMatch(/const c = '\s+';$/);
  expect(codeOnly.length).toBe(source.length);
});
