/**
 * A Dockerfile on a host where no Docker Engine runs: buildah builds it, completes it with an init and a kernel, and what comes
 * out starts and answers as what the Engine builds (image-build.e2e.ts).
 */
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DriftReport } from "../src/kinds/drift.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { minimalDebian } from "./minimal-debian.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";

const example = new URL("../examples/guestbook", import.meta.url).pathname;
const project = "default";

let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create({
    STRATA_DOCKER_SOCKET: "/run/strata-no-such-engine.sock",
    STRATA_BUILD_NETWORK: "host",
  });
  await daemon.start();
}, 60_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

describe("the guest book, without an engine", () => {
  it("is built on a Debian that comes with the context, and completed", async () => {
    const context = await daemon.scratch("guestbook");
    await cp(example, context, { recursive: true });
    await rm(join(context, ".dockerignore"));
    await cp(await minimalDebian(), join(context, "debian.tar"));
    const dockerfile = await readFile(join(example, "Dockerfile"), "utf8");
    const local = dockerfile.replace(/^FROM .*BASE.*$/m, "FROM scratch\nADD debian.tar /");
    expect(local).not.toBe(dockerfile);
    await writeFile(join(context, "Dockerfile"), local);
    const { stderr } = await daemon.ok(["image", "build", "guestbook", context, "--no-cache"]);
    expect(stderr).toMatch(/RUN apt-get update/);
    expect(stderr).toMatch(/guestbook: completing: /);
    const { status } = await daemon.client.require(imageKind, { project, name: "guestbook" });
    expect(status).toMatchObject({ state: "ready", types: ["vm", "container"], boot: "direct" });
    expect(status.message).toMatch(/^runs python3 -B .*, exposes 8080\/tcp; added by Strata: .*systemd-sysv/);
  }, 500_000);

  it("answers in a system container, which is as its image", async () => {
    const services = [{ name: "http", port: 8080 }];
    const size = { memoryMib: 256, diskMib: 2048 };
    const spec = { image: "guestbook", type: "container", driver: "lxc", services, ...size };
    await daemon.client.create(instanceKind, { project, name: "book", spec: spec as never });
    const book = () => daemon.client.require(instanceKind, { project, name: "book" });
    const isReady = async () => {
      const { status } = await book();
      if (status.state === "failed") throw new Error(status.message);
      return status.conditions.some((one) => one.type === "Ready" && one.status === "true");
    };
    await until("it is ready", isReady, 100_000, 100);
    const url = `http://${addressOf(await book())}:8080`;
    expect(JSON.parse((await httpGet(`${url}/about`, 20_000)).text)).toMatchObject({
      title: 'Guest book: 100% of $5 "plans"',
      arguments: ["--database", "entries.sqlite"],
    });
    const { differences } = await daemon.json<DriftReport>(["instance", "drift", "book"]);
    expect(differences).toEqual([]);
  }, 200_000);
});
