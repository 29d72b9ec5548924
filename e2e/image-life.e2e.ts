/**
 * An image's way out and back through a whole daemon and the command line: exported as a disk, imported as a machine that
 * boots by its own loader, running as a virtual machine and as a container that answer alike.
 */
import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Image } from "../src/kinds/image.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const bootMs = 120_000;
let before: Snapshot;
let daemon: TestDaemon;
let directory: string;

beforeAll(async () => {
  const tiny = await tinyImage();
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  directory = await daemon.scratch("files");
  await daemon.ok(["image", "import", "tiny", tiny]);
});
afterAll(async () => {
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
});

const file = (name: string) => join(directory, name);
const image = (name: string) => daemon.json<Image>(["image", "info", name]);

it("a tree is exported as a disk, whose import is a machine of its own", async () => {
  await daemon.ok(["image", "export", "tiny", file("tiny.qcow2")]);
  await promisify(execFile)("qemu-img", ["check", "-q", "-f", "qcow2", file("tiny.qcow2")]);
  expect((await stat(file("tiny.qcow2"))).mode & 0o777).toBe(0o600);
  const again = await daemon.strata(["image", "export", "tiny", file("tiny.qcow2")]);
  expect(again.status).not.toBe(0);
  expect(again.stderr).toMatch(/exists already/);
  await daemon.ok(["image", "import", "own", file("tiny.qcow2"), "--boot", "firmware"]);
  const [tree, own] = [await image("tiny"), await image("own")];
  expect(tree.status).toMatchObject({ boot: "direct", types: ["vm", "container"] });
  expect(own.status).toMatchObject({ boot: "firmware", types: ["vm", "container"], message: "" });
  expect(own.status.digest).not.toBe(tree.status.digest);
});

it("it runs as a virtual machine and as a container, which answer alike", async () => {
  await daemon.ok(["launch", "own", "machine", "--type", "vm", "--disk", "1GiB", "--memory", "256MiB"]);
  await daemon.ok(["launch", "own", "box", "--type", "container", "--disk", "1GiB"]);
  for (const instance of await daemon.instances()) {
    const { name } = instance.metadata;
    const url = `http://${addressOf(instance)}/`;
    // Its host name, with or without the network's domain.
    const answers = async () => (await httpGet(url)).text.trim().split(".", 1)[0] === name;
    await until(`${name} answers`, answers, bootMs, 200);
  }
});

it("what comes back is the same, by any way; a list of its software needs a package manager", async () => {
  await daemon.ok(["image", "export", "own", file("own.ova")]);
  await daemon.ok(["image", "import", "ova", file("own.ova"), "--boot", "firmware"]);
  expect((await image("ova")).status.digest).toBe((await image("own")).status.digest);
  await daemon.ok(["image", "export", "tiny", file("tiny.oci"), "--format", "oci"]);
  await daemon.ok(["image", "import", "layers", file("tiny.oci"), "--format", "oci"]);
  expect((await image("layers")).status.digest).toBe((await image("tiny")).status.digest);
  const sbom = await daemon.strata(["image", "sbom", "tiny", file("tiny.spdx.json")]);
  expect(sbom.status).not.toBe(0);
  expect(sbom.stderr).toMatch(/no package database/);
  await expect(stat(file("tiny.spdx.json"))).rejects.toThrow();
  await expect(stat(file("tiny.spdx.json.partial"))).rejects.toThrow();
});
