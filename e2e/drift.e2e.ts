/**
 * What differs from the image, and the way back to it, through a whole daemon and the command line: guests of one image
 * under three drivers.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DriftReport } from "../src/kinds/drift.ts";
import { TestEngine } from "./docker-engine.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const { signal } = new AbortController();
let before: Snapshot;
let engine: TestEngine;
let daemon: TestDaemon;

beforeAll(async () => {
  const tiny = await tinyImage();
  before = await takeSnapshot();
  engine = await TestEngine.start("/var/tmp/strata-e2e-engine");
  daemon = await TestDaemon.create({ STRATA_DOCKER_SOCKET: engine.socketPath });
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", tiny]);
}, 180_000);
afterAll(async () => {
  await daemon?.dispose().finally(() => engine.stop());
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const drift = (name: string, ...options: string[]) =>
  daemon.json<DriftReport>(["instance", "drift", name, ...options]);
const changes = async (name: string) =>
  (await drift(name)).differences.map(({ change, path, aspects }) => [change, path, ...aspects].join(" "));
const inside = (name: string, script: string) => daemon.ok(["exec", name, "--", "sh", "-c", script]);

/** What changes everything that can change, and what must be found then. */
const doings =
  "rm -r /etc/profile /lib/modules; mkdir -p /srv/www; echo hi > /srv/www/index; chmod 600 /etc/group; " +
  "cp -p /etc/udhcpc /x && mv /x /etc/udhcpc; chown 7 /sbin; ln -s busybox /bin/mine; echo x > /tmp/x; sync";
const findings = [
  "added /bin/mine",
  "changed /etc/group mode",
  "changed /etc/passwd content",
  "removed /etc/profile",
  "removed /lib/modules",
  "changed /sbin owner",
  "added /srv",
  "added /srv/www",
  "added /srv/www/index",
];
const withoutModules = (found: string[]) => found.filter((line) => !line.includes("/lib/modules/"));

test("a container is as its image; then exactly what was done inside is found, running and stopped", async () => {
  await daemon.ok(["launch", "tiny", "box", "--type", "container", "--disk", "256MiB"]);
  expect(await drift("box")).toMatchObject({ reading: "running", differences: [] });
  await inside("box", "echo 'me::0:0:me:/:/bin/sh' >> /etc/passwd");
  expect(await changes("box")).toEqual(["changed /etc/passwd content"]);
  await inside("box", doings);
  expect(withoutModules(await changes("box"))).toEqual(findings);
  await daemon.ok(["stop", "box"]);
  expect(await drift("box")).toMatchObject({ reading: "idle" });
  expect(withoutModules(await changes("box"))).toEqual(findings);
  const shown = await daemon.ok(["instance", "drift", "box"]);
  expect(shown.stdout).toMatch(/removed +\/lib\/modules +directory, and \d+ below/);
  expect(shown.stdout).toMatch(/added +\/srv +directory, and 2 below/);
  expect((await drift("box", "--all")).differences).toContainEqual(
    expect.objectContaining({ path: "/tmp/x", usual: "temporary files" }),
  );
});

test("so is a container of Docker's", async () => {
  const serve = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
  await daemon.ok([
    "launch",
    "tiny",
    "app",
    "--driver",
    "docker",
    "--type",
    "container",
    "--",
    "sh",
    "-c",
    serve,
  ]);
  expect(await drift("app")).toMatchObject({ reading: "running", differences: [] });
  await inside("app", "echo 'me::0:0:me:/:/bin/sh' >> /etc/passwd");
  expect(await changes("app")).toEqual(["changed /etc/passwd content"]);
  await inside("app", doings);
  expect(withoutModules(await changes("app"))).toEqual(findings);
  await daemon.ok(["stop", "app"]);
  expect(await drift("app")).toMatchObject({ reading: "idle" });
  expect(withoutModules(await changes("app"))).toEqual(findings);
});

test("rebuilt, they are as their image again, with their volumes, addresses and names", async () => {
  const before = await daemon.instances();
  await daemon.ok(["start", "box", "app"]);
  await daemon.ok(["volume", "create", "kept", "--size", "64MiB"]);
  await daemon.ok(["volume", "attach", "kept", "box"]);
  await inside("box", "echo kept > /mnt/kept/text; sync");
  expect(withoutModules(await changes("box"))).toContain("added /srv/www/index");
  const refused = await daemon.strata(["instance", "rebuild", "box"]);
  expect(refused.status).not.toBe(0);
  expect(refused.stderr).toMatch(/--yes/);
  await daemon.ok(["instance", "rebuild", "box", "app", "--yes"]);
  expect((await inside("box", "cat /mnt/kept/text")).stdout).toBe("kept\n");
  await inside("app", "! test -e /srv");
  for (const name of ["box", "app"]) expect(await changes(name)).toEqual([]);
  for (const instance of await daemon.instances()) {
    const old = before.find(({ metadata }) => metadata.uid === instance.metadata.uid);
    expect(instance.status.nic).toEqual(old?.status.nic);
    expect(instance.status).toMatchObject({ state: "running", observedRebuilds: 1 });
  }
  await inside("box", "echo changed > /etc/motd");
  await daemon.ok(["stop", "box", "app"]);
  await daemon.ok(["instance", "rebuild", "box", "--yes"]);
  expect(await drift("box")).toMatchObject({ reading: "idle", differences: [] });
});

/** Types a line into the machine's console, and waits for what it prints at its end. */
async function type(name: string, script: string): Promise<void> {
  const channel = await daemon.client.openSession("console", { project, name }, {}, signal);
  let seen = "";
  channel.onData = (_number, data) => {
    seen += Buffer.from(data).toString();
  };
  channel.onControl = () => {};
  channel.onClose = () => {};
  await channel.send(0, Buffer.from(`${script}; echo do''ne\n`));
  await until(`${name} has done it`, () => seen.includes("done\r\n"), 60_000, 50);
  channel.close();
}

test("so is a virtual machine, held still without an agent, and its journal read", async () => {
  await daemon.ok(["launch", "tiny", "vm", "--type", "vm", "--disk", "512MiB", "--memory", "192MiB"]);
  const [machine] = (await daemon.instances()).filter(({ metadata }) => metadata.name === "vm");
  if (!machine) throw new Error("there is no machine");
  const answers = async () => (await httpGet(`http://${addressOf(machine)}/`)).status === 200;
  await until("the machine answers", answers, 120_000, 200);
  expect(await drift("vm")).toMatchObject({ reading: "paused", differences: [] });
  await type("vm", "echo 'me::0:0:me:/:/bin/sh' >> /etc/passwd; sync");
  expect(await changes("vm")).toEqual(["changed /etc/passwd content"]);
  await type("vm", doings);
  expect(withoutModules(await changes("vm"))).toEqual(findings);
  expect(await answers()).toBe(true);
  await daemon.ok(["stop", "vm"]);
  expect(await drift("vm")).toMatchObject({ reading: "idle" });
  expect(withoutModules(await changes("vm"))).toEqual(findings);
}, 300_000);
