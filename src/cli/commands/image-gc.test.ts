import { beforeEach, expect, test } from "vitest";
import { groupKind } from "../../kinds/group.ts";
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
  const image = (name: string, status: object, spec: object = {}) =>
    terminal.client.seed(
      imageKind as Kind,
      { name, project: "default", spec: { source: { type: "debian", suite: "bookworm" }, ...spec } },
      { observedGeneration: 1, ...status },
    );
  image("used", { state: "ready" });
  image("grouped", { state: "ready" });
  image("kept", { state: "ready" }, { protected: true });
  image("building", { state: "building" });
  image("old", { state: "ready" });
  image("broken", { state: "failed" });
  const template = { type: "container" };
  terminal.client.seed(instanceKind as Kind, {
    ...{ name: "web", project: "default" },
    spec: { ...template, image: "used" },
  });
  terminal.client.seed(groupKind as Kind, {
    ...{ name: "webs", project: "default" },
    spec: { template: { ...template, image: "grouped" }, min: 0, max: 1, desired: 0 },
  });
});

const left = () =>
  [...terminal.client.resources.keys()]
    .flatMap((key) => /^\/images\/default\/(.+)$/.exec(key)?.[1] ?? [])
    .sort();

test("what nothing uses goes; what is used, protected or being made stays", async () => {
  const shown = await terminal.run("image", "gc", "--dry-run", "--json");
  const names = (JSON.parse(shown.out) as { metadata: { name: string } }[]).map(
    ({ metadata }) => metadata.name,
  );
  expect(names.sort()).toEqual(["broken", "old"]);
  expect(left()).toHaveLength(6);
  expect((await terminal.run("image", "gc")).status).toBe(0);
  expect(left()).toEqual(["building", "grouped", "kept", "used"]);
  expect((await terminal.run("image", "gc")).err).toMatch(/every image is used or protected/);
});

test("an image is protected and let go again", async () => {
  expect((await terminal.run("image", "protect", "old")).status).toBe(0);
  await terminal.run("image", "gc");
  expect(left()).toContain("old");
  await terminal.run("image", "unprotect", "old");
  await terminal.run("image", "gc");
  expect(left()).not.toContain("old");
});
