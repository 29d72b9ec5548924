/**
 * A Dockerfile of a small web service with a database, built once: a virtual machine, a system container and an application
 * container of it answer alike. Built again it is the same image. What goes wrong in a build is one error, and nothing is
 * left of it.
 */
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DriftReport } from "../src/kinds/drift.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { TestEngine } from "./docker-engine.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { minimalDebian } from "./minimal-debian.ts";
import { addressOf, httpGet, TestDaemon, testImageDir, until } from "./test-daemon.ts";

const example = new URL("../examples/guestbook", import.meta.url).pathname;
const project = "default";

let before: Snapshot;
let engine: TestEngine;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  engine = await TestEngine.start("/var/tmp/strata-e2e-build");
  const tar = await readFile(await minimalDebian());
  const place = "/images/create?fromSrc=-&repo=debian&tag=bookworm-slim";
  expect((await engine.send("POST", place, tar, "application/x-tar")).status).toBe(200);
  daemon = await TestDaemon.create({
    STRATA_DOCKER_SOCKET: engine.socketPath,
    STRATA_BUILD_NETWORK: "host",
  });
  await daemon.start();
}, 400_000);

afterAll(async () => {
  await Promise.resolve(daemon?.dispose()).finally(() => engine.stop());
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const imageOf = (name: string) => daemon.client.require(imageKind, { project, name });
const drivers = ["qemu", "lxc", "docker"] as const;

describe("the guest book", () => {
  it("is built of its Dockerfile, with what Debian's base image lacks", async () => {
    await daemon.ok(["image", "build", "guestbook", example]);
    const { status } = await imageOf("guestbook");
    expect(status).toMatchObject({ state: "ready", types: ["vm", "container"], boot: "direct" });
    expect(status.message).toMatch(/^runs python3 -B .*, exposes 8080\/tcp; added by Strata: /);
    expect(status.message).toMatch(/linux-image-cloud-\w+, .*systemd-sysv/);
  }, 400_000);

  it("starts as a virtual machine, a system container and an application container", async () => {
    for (const driver of drivers) {
      const type = driver === "qemu" ? "vm" : "container";
      const size = { memoryMib: driver === "qemu" ? 512 : 256, diskMib: 2048 };
      const spec = { image: "guestbook", type, driver, services: [{ name: "http", port: 8080 }], ...size };
      await daemon.client.create(instanceKind, { project, name: driver, spec: spec as never });
    }
    await until("all three are ready", async () => (await daemon.instances()).every(isReady), 300_000, 200);
  }, 400_000);

  it("answers alike in all three", async () => {
    const addresses = (await daemon.instances()).map((one) => `http://${addressOf(one)}:8080`);
    const ask = async (path: string) =>
      Promise.all(addresses.map(async (url) => (await httpGet(`${url}${path}`, 20_000)).text));
    const about = await ask("/about");
    expect(JSON.parse(about[0] ?? "")).toMatchObject({
      title: 'Guest book: 100% of $5 "plans"',
      directory: "/var/lib/guestbook",
      home: "/var/lib/guestbook",
      arguments: ["--database", "entries.sqlite"],
    });
    expect(about).toEqual([about[0], about[0], about[0]]);
    for (const text of ["first", "second, with ümläuts"]) {
      for (const url of addresses) {
        const sent = await fetch(`${url}/`, {
          method: "POST",
          body: text,
          signal: AbortSignal.timeout(20_000),
        });
        expect(sent.status).toBe(201);
      }
    }
    const entries = JSON.stringify([
      { id: 1, text: "first" },
      { id: 2, text: "second, with ümläuts" },
    ]);
    for (const found of await ask("/entries")) expect(JSON.stringify(JSON.parse(found))).toBe(entries);
  }, 400_000);

  it("is as its image in all three; then exactly the file that was edited is found", async () => {
    const changes = async (name: string) => {
      const { differences } = await daemon.json<DriftReport>(["instance", "drift", name]);
      return differences.map(({ change, path, aspects }) => [change, path, ...aspects].join(" "));
    };
    for (const driver of drivers) {
      expect([driver, await changes(driver)]).toEqual([driver, []]);
      await daemon.ok(["exec", driver, "--", "sh", "-c", "echo edited >> /etc/issue; sync"]);
      expect([driver, await changes(driver)]).toEqual([driver, ["changed /etc/issue content"]]);
    }
  }, 400_000);
});

describe("the same Dockerfile, every step anew", () => {
  it("gives the same digest, and tells how it comes along", async () => {
    // With an init, so that only kernel and initrd are added: it is their making that could differ.
    const lines = [
      "FROM debian:bookworm-slim",
      "RUN apt-get update && apt-get install --yes openssl && useradd --create-home someone",
      "RUN printf '#!/bin/sh\\nexec sleep infinity\\n' > /sbin/init && chmod 755 /sbin/init && date > /run/now",
    ];
    const directory = await daemon.scratch("contexts/small");
    await writeFile(join(directory, "Dockerfile"), `${lines.join("\n")}\n`);
    await daemon.ok(["image", "build", "small", directory]);
    const { stderr } = await daemon.ok(["image", "build", "small-again", directory, "--no-cache"]);
    expect(stderr).toMatch(/small-again: 2\/\d+ RUN apt-get update/);
    expect(stderr).toMatch(/small-again: completing: /);
    const [once, again] = [await imageOf("small"), await imageOf("small-again")];
    expect(once.status).toMatchObject({ state: "ready", types: ["vm", "container"] });
    expect(once.status.message).toMatch(/^added by Strata: initramfs-tools, linux-image-cloud-\w+, lz4$/);
    expect(again.status.digest).toBe(once.status.digest);
  }, 400_000);
});

function isReady(instance: Instance): boolean {
  if (instance.status.state === "failed")
    throw new Error(`${instance.metadata.name}: ${instance.status.message}`);
  return instance.status.conditions.some((one) => one.type === "Ready" && one.status === "true");
}

describe("a build that goes wrong", () => {
  const from = "FROM debian:bookworm-slim\n";
  const context = async (name: string, dockerfile?: string) => {
    const directory = await daemon.scratch(`contexts/${name}`);
    if (dockerfile !== undefined) await writeFile(join(directory, "Dockerfile"), dockerfile);
    return directory;
  };
  const build = async (name: string, directory: string, ...options: string[]) => {
    const { status, stdout, stderr } = await daemon.strata(["image", "build", name, directory, ...options]);
    return { status, error: `${stdout}${stderr}`.replace(/^[\s\S]*?(?=error: )/, "") };
  };
  const leftovers = async () => {
    const { body } = await engine.get("/containers/json?all=1");
    const ours = (body as { Labels: Record<string, string>; Command: string }[]).filter(
      ({ Labels }) => Labels["strata.uid"] === undefined,
    );
    return { containers: ours.map(({ Command }) => Command), work: await readdir(join(testImageDir, "tmp")) };
  };
  const nothing = { containers: [], work: [] };

  it("names the step that fails and what it said, and the next try takes the image's place", async () => {
    const directory = await context("broken", `${from}RUN echo the reason >&2; exit 3\n`);
    const { status, error } = await build("broken", directory);
    expect(status).not.toBe(0);
    expect(error).toMatch(
      /^error: the image "broken" cannot be made: the Dockerfile cannot be built: .*returned a non-zero code: 3\n/,
    );
    expect(error).toMatch(/^the reason$/m);
    expect(error).toMatch(/^all that the build printed: strata image log broken$/m);
    const { stdout } = await daemon.ok(["image", "log", "broken"]);
    expect(stdout).toMatch(/^step 1\/\d+ ?: FROM debian:bookworm-slim$/im);
    expect(stdout).toMatch(/^the reason$/m);
    expect(stdout).toMatch(/^strata: ended: .*the Dockerfile cannot be built/m);
    expect(await leftovers()).toEqual(nothing);
    await writeFile(join(directory, "Dockerfile"), `${from}RUN exit 4\n`);
    expect((await build("broken", directory)).error).toContain("returned a non-zero code: 4");
    expect((await imageOf("broken")).status).toMatchObject({ state: "failed", types: [] });
  });

  it("has no Dockerfile", async () => {
    const { status, error } = await build("none", await context("none"));
    expect(status).toBe(2);
    expect(error).toMatch(/^error: .*\/none has no file "Dockerfile"; name the Dockerfile with --file\n$/);
    expect(await daemon.client.get(imageKind, { project, name: "none" })).toBeUndefined();
  });

  it("has a link that leads out of its context", async () => {
    const directory = await context("climbing", `${from}COPY . /\n`);
    await symlink("../../../../../../etc/shadow", join(directory, "shadow"));
    const { error } = await build("climbing", directory);
    expect(error).toMatch(
      /the build's context is refused: "shadow" is a link to .*, which leads out of the context\n$/,
    );
    expect(await leftovers()).toEqual(nothing);
  });

  it("never gets a file of the host by an absolute link", async () => {
    const directory = await context("absolute", `${from}COPY host /found\n`);
    await symlink("/etc/shadow", join(directory, "host"));
    expect((await build("absolute", directory)).error).toMatch(/COPY failed|not found|no such file/);
  });

  it("never ends", async () => {
    const directory = await context("endless", `${from}RUN echo begun; sleep infinity\n`);
    const { error } = await build("endless", directory, "--time-limit", "8");
    expect(error).toMatch(
      /the build took longer than 8 s, its limit, and was ended; .*--time-limit\nall that .*: strata image log endless\n$/,
    );
    await until("the step is gone", async () => (await leftovers()).containers.length === 0, 20_000, 100);
    expect(await leftovers()).toEqual(nothing);
  });

  it("builds on an image of Strata that is not there", async () => {
    const { error } = await build("orphan", await context("orphan", "FROM strata/nobody\n"));
    expect(error).toContain('builds on strata/nobody, but this host has no image "nobody"');
  });

  it("takes more memory than its steps may have", async () => {
    const hungry = `${from}RUN head -c 200m /dev/zero | tail | wc -c\n`;
    const { error } = await build("hungry", await context("hungry", hungry), "--memory", "64MiB");
    expect(error).toMatch(/cannot be built/);
    expect(await leftovers()).toEqual(nothing);
  });

  it("is of a system that Strata cannot complete", async () => {
    const foreign = `${from}RUN sed -i s/^ID=.*/ID=other/ /etc/os-release\nCMD ["sleep", "1"]\n`;
    const { error } = await build("foreign", await context("foreign", foreign));
    expect(error).toMatch(/an init and a kernel cannot be added .*from Debian and Ubuntu only/);
  });
});
