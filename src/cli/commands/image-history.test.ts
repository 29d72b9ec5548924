import { expect, test } from "vitest";
import { groupKind } from "../../kinds/group.ts";
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";

const digest = `sha256:${"1".repeat(64)}`;
const sha256 = "2".repeat(64);

function terminalWith(): TestTerminal {
  const terminal = new TestTerminal();
  const seed = (kind: unknown, name: string, spec: object, status: object = {}) =>
    terminal.client.seed(kind as Kind, { name, project: "default", spec } as never, status as never);
  const source = { type: "upload", upload: "u1", format: "oci", sha256 };
  const steps = [{ at: "2026-11-01T00:00:00Z", by: "ADD rootfs" }, { by: "RUN apt-get install nginx" }];
  const origin = {
    madeAt: "2026-11-28T12:00:00Z",
    artefact: { format: "oci", sha256, sizeBytes: 2048 },
    steps,
  };
  seed(imageKind, "web", { source }, { state: "ready", digest, host: "one", os: "Debian 12", origin });
  seed(imageKind, "twin", { source: { ...source, upload: "u2" } }, { state: "ready", digest });
  const debian = { type: "debian", suite: "trixie", packages: ["git"] };
  seed(imageKind, "other", { source: debian }, { state: "building" });
  seed(instanceKind, "by-name", { type: "container", image: "web" });
  seed(instanceKind, "by-content", { type: "container", image: "twin" }, { imageDigest: digest });
  seed(instanceKind, "stranger", { type: "container", image: "other" });
  const template = { type: "container", image: "web" };
  seed(groupKind, "webs", { template, min: 0, max: 1, desired: 0 });
  return terminal;
}

test("where an image came from, its steps, and who uses it", async () => {
  const { out, status } = await terminalWith().run("image", "history", "web");
  expect(status).toBe(0);
  expect(out).toMatch(/source.*upload/);
  expect(out).toMatch(/read from.*format oci, 2 KiB/);
  expect(out).toContain(sha256);
  expect(out).toMatch(/1.*2026-11-01T00:00:00Z {2}ADD rootfs/);
  expect(out).toMatch(/2.*RUN apt-get install nginx/);
  expect(out).toMatch(/made.*2026-11-28T12:00:00Z/);
  expect(out).toContain(digest);
  expect(out).toMatch(/instances.*by-content, by-name/);
  expect(out).toMatch(/groups.*webs/);
  expect(out).toMatch(/same content.*twin/);
});

test("--json has the same; an image that is being made has no origin yet", async () => {
  const terminal = terminalWith();
  const read = async (name: string) =>
    JSON.parse((await terminal.run("image", "history", name, "--json")).out);
  expect(await read("web")).toMatchObject({
    ...{ name: "web", digest, origin: { artefact: { format: "oci" } } },
    ...{ instances: ["by-content", "by-name"], groups: ["webs"], sameContent: ["twin"] },
  });
  expect(await read("other")).toMatchObject({
    digest: null,
    origin: null,
    instances: ["stranger"],
    groups: [],
  });
  const { out } = await terminal.run("image", "history", "other");
  expect(out).toMatch(/suite.*trixie/);
  expect(out).toMatch(/packages.*git/);
  expect(out).toMatch(/made.*building/);
});
