import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parse } from "yaml";
import { StrataError } from "../../core/errors.ts";
import { explain } from "../explain.ts";
import { withFiles } from "./cloud-config.ts";
import { loadStack } from "./load-stack.ts";
import { parseStack } from "./parse-stack.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "stack-"));
});
afterEach(() => rm(directory, { recursive: true }));

async function load(text: string) {
  await writeFile(join(directory, "s.yaml"), text);
  return await loadStack("s.yaml", { cwd: directory, home: directory });
}

/** The lines that a person sees. */
async function complaint(text: string): Promise<string[]> {
  const error = await load(text).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StrataError);
  return explain(error).split("\n");
}

const minimal = "stack: s\nimages: { i: { debian: bookworm } }\ninstances:\n";

test("a whole stack becomes resources in the order of their creation", async () => {
  await writeFile(join(directory, "key.pub"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here\n");
  const { desired, project } = await load(`
stack: school
images: { base: { debian: bookworm, packages: [python3] } }
keyPairs: { me: { file: key.pub } }
instances:
  web: { count: 2, type: container, image: base, memory: 512MiB, disk: 4GiB, keyPairs: [me] }
  lms: { type: vm, image: base, services: [{ name: http, port: 80, protocol: http }] }
`);
  expect(project).toBe("school");
  expect(desired.map(({ kind, name }) => `${kind.name} ${name}`)).toEqual([
    "Project school",
    "KeyPair me",
    "Image base",
    "Instance web-1",
    "Instance web-2",
    "Instance lms",
  ]);
  expect(desired[3]).toMatchObject({
    project: "school",
    labels: { "strata/stack": "school", "strata/stack-entry": "web" },
    spec: { type: "container", image: "base", memoryMib: 512, diskMib: 4096, keyPairs: ["me"] },
  });
});

test.each([
  [
    "an unknown key",
    "  a: { type: vm, image: i, memroy: 1GiB }",
    's.yaml:4:28: instances.a.memroy: unknown key; did you mean "memory"?',
  ],
  [
    "a wrong unit",
    "  a: { type: vm, image: i, memory: 1GB }",
    's.yaml:4:36: instances.a.memory: "1GB" is not a size',
  ],
  [
    "a number without unit",
    "  a: { type: vm, image: i, memory: 512 }",
    "s.yaml:4:36: instances.a.memory: must be a whole number with KiB",
  ],
  [
    "a wrong value",
    "  a: { type: lxc, image: i }",
    "s.yaml:4:14: instances.a.type: is not one of the values allowed (allowed: vm, container)",
  ],
  ["a missing key", "  a: { type: vm }", "s.yaml:4:3: instances.a.image: is missing (allowed: string)"],
  ["a rule of the kind", "  a: { type: vm, image: i, cpus: 9999 }", "s.yaml:4:34: instances.a.cpus: Too big"],
  [
    "a rule of the kind about a renamed key",
    "  a: { type: vm, image: i, memory: 1MiB }",
    "s.yaml:4:36: instances.a.memory: Too small",
  ],
  [
    "a duplicate key",
    "  a: { type: vm, image: i }\n  a: { type: vm, image: i }",
    "s.yaml:5:3: this key appears twice in the same place",
  ],
  [
    "a name with shell characters",
    "  'a; reboot': { type: vm, image: i }",
    's.yaml:4:3: instances.a; reboot: the name "a; reboot" must be 1 to 63 of',
  ],
  [
    "names that collide once counted",
    "  a: { count: 2, type: vm, image: i }\n  a-2: { type: vm, image: i }",
    's.yaml:5:3: instances.a-2: "a-2" is also the name of what s.yaml:4:3: instances.a says',
  ],
  ["no YAML", "  a: { type: vm", "s.yaml:5:1: Flow map"],
  [
    "a file that is not there",
    "  a: { type: vm, image: i, userData: { file: no.yaml } }",
    's.yaml:4:46: instances.a.userData.file: there is no file "no.yaml" beside the stack file',
  ],
  [
    "a file outside",
    "  a: { type: vm, image: i, files: [{ source: /etc/passwd, path: /x }] }",
    's.yaml:4:46: instances.a.files[0].source: "/etc/passwd" must lie in the directory',
  ],
])("%s is shown with its place", async (_what, instances, expected) => {
  const [first, ...fields] = await complaint(`${minimal}${instances}\n`);
  expect(first).toMatch(/^error: .*nothing was changed$/);
  expect(
    fields.some((line) => line.trim().startsWith(expected)),
    fields.join("\n"),
  ).toBe(true);
});

test("a symbolic link does not lead out of the directory", async () => {
  await symlink("/etc/hostname", join(directory, "link"));
  const lines = await complaint(`${minimal}  a: { type: vm, image: i, userData: { file: link } }`);
  expect(lines[1]).toContain("must lie in the directory");
});

test("user data over its limit is refused before anything else happens", async () => {
  await writeFile(join(directory, "big.yaml"), `#cloud-config\n# ${"x".repeat(66_000)}\n`);
  const lines = await complaint(`${minimal}  a: { type: vm, image: i, userData: { file: big.yaml } }`);
  expect(lines[1]).toContain("instances.a.userData: must be at most 65536 bytes");
});

test("anchors that multiply are refused", () => {
  const levels = Array.from(
    { length: 9 },
    (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join(",")}]`,
  );
  const bomb = `a0: &a0 [x]\n${levels.join("\n")}\n`;
  expect(() => parseStack(bomb, "bomb.yaml")).toThrow(/refers to anchors too often/);
});

test("parsing never throws anything but Invalid", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => {
      try {
        parseStack(`stack: s\n${text}`, "f.yaml");
      } catch (error) {
        expect(error).toMatchObject({ code: "Invalid" });
      }
    }),
  );
});

test("files join user data that is there, and large ones are compressed", () => {
  const small = { path: "/a", content: Buffer.from("small"), mode: "0755" };
  const large = { path: "/b", content: Buffer.alloc(40_000, "l"), owner: "app:app" };
  const text = withFiles("#cloud-config\n# kept\nruncmd: [[echo, hi]]\nwrite_files: [{ path: /z }]\n", [
    small,
    large,
  ]);
  expect(text).toMatch(/^#cloud-config\n/);
  const config = parse(text) as { runcmd: unknown; write_files: Record<string, string>[] };
  expect(config.runcmd).toEqual([["echo", "hi"]]);
  expect(config.write_files.slice(0, 2)).toEqual([
    { path: "/z" },
    { path: "/a", permissions: "0755", encoding: "b64", content: "c21hbGw=" },
  ]);
  const third = config.write_files[2] ?? {};
  expect(third).toMatchObject({ path: "/b", encoding: "gz+b64", owner: "app:app", defer: true });
  expect(gunzipSync(Buffer.from(third.content ?? "", "base64")).equals(large.content)).toBe(true);
});

test("files need user data that can hold them", () => {
  const file = { path: "/a", content: Buffer.from("x") };
  expect(() => withFiles("#!/bin/sh\n", [file])).toThrow(/begins with #cloud-config/);
  expect(withFiles(undefined, [file])).toMatch(/^#cloud-config\n+write_files:/);
});
