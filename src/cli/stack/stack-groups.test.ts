import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { groupKind } from "../../kinds/group.ts";
import { loadStack } from "./load-stack.ts";

/** Groups in stack files, the examples of the guide first. */

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), "groups-"));
});
afterEach(() => rm(cwd, { recursive: true }));

async function load(text: string) {
  await writeFile(join(cwd, "stack.yaml"), text);
  const { desired } = await loadStack("stack.yaml", { cwd, home: undefined });
  return desired.filter(({ kind }) => kind.name === groupKind.name);
}

const guide = await readFile(new URL("../../../docs/groups.md", import.meta.url), "utf8");
const examples = [...guide.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text = ""]) => text);

test("the guide has examples", () => {
  expect(examples.length).toBeGreaterThanOrEqual(3);
});

describe("examples of the guide", () => {
  test.each(examples.map((text) => [text.split("\n", 1)[0], text]))("%s", async (_title, text) => {
    const groups = await load(text ?? "");
    expect(groups.length).toBeGreaterThan(0);
    for (const { spec } of groups) expect(() => groupKind.spec.parse(spec)).not.toThrow();
  });
});

test("a template has the short names of an instance, its files and sizes; labels go to the group", async () => {
  await writeFile(join(cwd, "hello.txt"), "hello");
  const [group] = await load(`stack: s
images: { base: { debian: bookworm } }
groups:
  web:
    labels: { tier: front }
    template:
      { type: container, image: base, memory: 1GiB, files: [{ source: hello.txt, path: /srv/hello.txt }] }
    max: 3
`);
  const spec = groupKind.spec.parse(group?.spec);
  expect(spec).toMatchObject({ min: 1, max: 3, template: { memoryMib: 1024 } });
  expect(spec.template.userData).toContain("/srv/hello.txt");
  expect(group?.labels).toEqual({ tier: "front", "strata/stack": "s" });
});

test.each([
  ["min: 4, max: 2", "min"],
  ["maximum: 2", "maximum"],
  ["max: 2, policies: [{ type: target, name: x, metric: cpus, target: 5 }]", "metric"],
])("%s is refused at its place in the file", async (fields, where) => {
  const text = `stack: s
images: { base: { debian: bookworm } }
groups:
  web: { template: { type: container, image: base }, ${fields} }
`;
  await expect(load(text)).rejects.toMatchObject({
    code: "Invalid",
    fields: [expect.objectContaining({ path: expect.stringContaining(where) })],
  });
});
