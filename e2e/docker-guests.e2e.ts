/** What the docker driver promises beyond the conformance suite, with a real Engine. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { newUid, type Uid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import { noSignal, until } from "../src/drivers/conformance-bench.ts";
import type { GuestSpec } from "../src/drivers/driver.ts";
import { run } from "../src/host/run.ts";
import { DockerBench, tinyInit } from "./docker-bench.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";

const namespace = "e2e-dockg";
let bench: DockerBench;
let before: Snapshot;

beforeAll(async () => {
  before = await takeSnapshot();
  bench = await DockerBench.open(namespace, ["--live-restore"]);
});

afterEach(async () => {
  const driver = bench.driver();
  for (const guest of await driver.list()) await driver.destroy(guest.handle, noSignal);
  expect(await bench.leaks()).toEqual([]);
});

afterAll(async () => {
  await bench?.dispose();
  expect(await findLeaks(before, [namespace])).toEqual([]);
});

async function runGuest(spec: GuestSpec): Promise<{ uid: Uid; handle: { version: number; uid: Uid } }> {
  const driver = bench.driver();
  await driver.start(await driver.create(spec, noSignal), noSignal);
  return { uid: spec.uid, handle: { version: driver.handleVersion, uid: spec.uid } };
}

async function untilStopped(uid: Uid): Promise<string> {
  const driver = bench.driver();
  await until(async () => (await driver.inspect(uid))?.state === "stopped", 20_000, "the guest's end");
  const exit = (await driver.inspect(uid))?.exit;
  return `${exit?.reason}: ${exit?.message}`;
}

const serve = ["sh", "-c", "trap 'exit 0' TERM; echo serving; while :; do sleep 1000 & wait $!; done"];

test("an application is process 1, as its user, in its directory, with its environment and no more", async () => {
  const spec = await bench.makeApplication({
    command: serve,
    environment: { GREETING: "a b=c", PATH: "/bin" },
    workingDirectory: "/data",
    user: "worker",
  });
  const { uid } = await runGuest({ ...spec, hostname: "worker-1", maxProcesses: 50 });
  const status = await bench.exec(uid, "cat", "/proc/1/status");
  expect(status).toMatch(/^Uid:\s+1234\s/m);
  expect(status).toMatch(/^Gid:\s+1234\s/m);
  expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
  expect(status).toMatch(/^Seccomp:\s+2$/m);
  expect(status).toMatch(/^CapEff:\s+0+$/m);
  const bounding = BigInt(`0x${/^CapBnd:\s+([0-9a-f]+)$/m.exec(status)?.[1]}`);
  expect(bounding & (1n << 13n), "raw sockets").toBe(0n);
  expect(bounding & (1n << 21n), "system administration").toBe(0n);
  const line = (await bench.exec(uid, "cat", "/proc/1/cmdline")).split("\0");
  expect(line.slice(0, 3)).toEqual(["/bin/sh", "-c", serve[2]]);
  const environment = (await readFile(`/proc/${await bench.pidOf(uid)}/environ`, "utf8")).split("\0");
  expect(environment).toContain("GREETING=a b=c");
  expect(environment.filter((variable) => /strata/i.test(variable))).toEqual([]);
  expect(await readlink(`/proc/${await bench.pidOf(uid)}/cwd`)).toBe("/data");
  expect(await bench.exec(uid, "cat", "/etc/hostname")).toBe("worker-1\n");
  const [nic] = spec.nics;
  expect(await bench.exec(uid, "cat", "/etc/resolv.conf")).toBe(`nameserver ${nic?.gateway}\n`);
  expect(await bench.exec(uid, "cat", "/etc/hosts")).toContain(`${nic?.ipAddress} worker-1\n`);

  const pid = await bench.pidOf(uid);
  expect(await bench.limit(pid, "pids", "pids.max", "pids.max")).toBe("50");
  const info = (await bench.engine.get(`/containers/${namespace}-${uid}/json`)).body as {
    HostConfig: Record<string, unknown>;
  };
  expect(info.HostConfig).toMatchObject({
    Memory: 64 * 1024 ** 2,
    MemorySwap: 64 * 1024 ** 2,
    RestartPolicy: { Name: "no" },
    NetworkMode: "none",
    Privileged: false,
  });
});

test("what it may reach of its files is mounted read-only, and owners are those of the image", async () => {
  const { uid } = await runGuest(await bench.makeApplication({ command: serve }));
  for (const path of ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/.strata/busybox"]) {
    expect((await bench.tryExec(uid, "sh", "-c", `echo x >> ${path}`)).status, path).not.toBe(0);
  }
  expect((await bench.exec(uid, "stat", "-c", "%u:%g", "/etc/passwd")).trim()).toBe("0:0");
  expect((await bench.exec(uid, "sh", "-c", "echo x > /etc/new && cat /etc/new")).trim()).toBe("x");
});

test("volumes survive restarts and go with the guest; so do the guest's own files", async () => {
  const spec = await bench.makeApplication({
    command: serve,
    volumes: [{ name: "store", path: "/data/store" }],
  });
  const { uid, handle } = await runGuest(spec);
  await bench.exec(uid, "sh", "-c", "echo kept > /data/store/file; echo also > /root/file");
  const driver = bench.driver();
  await driver.stop(handle, { graceMs: 10_000 }, noSignal);
  await driver.create(spec, noSignal);
  await driver.start(handle, noSignal);
  expect(await bench.exec(uid, "cat", "/data/store/file", "/root/file")).toBe("kept\nalso\n");
  const other = await bench.makeApplication({ command: ["sleep", "1000"] }, { uid: spec.uid });
  await driver.stop(handle, { graceMs: 0 }, noSignal);
  await expect(driver.create({ ...other, uid: spec.uid }, noSignal)).rejects.toMatchObject({
    code: "Conflict",
  });
});

test("health is told, and its changes are hinted at", async () => {
  const spec = await bench.makeApplication({
    command: serve,
    healthCheck: { command: ["test", "-e", "/tmp/ok"], intervalSeconds: 1, retries: 2 },
  });
  const { uid } = await runGuest({
    ...spec,
    root: await bench.root({ "sbin/init": tinyInit, "bin/test": testProgram }),
  });
  const driver = bench.driver();
  expect((await driver.inspect(uid))?.health).toBe("starting");
  const listening = new AbortController();
  const seen: (string | undefined)[] = [];
  const looking = (async () => {
    for await (const hint of driver.events(listening.signal)) {
      if (hint.uid === uid) seen.push((await driver.inspect(uid))?.health);
    }
  })();
  await bench.exec(uid, "touch", "/tmp/ok");
  await until(() => seen.includes("healthy"), 20_000, "a hint that it is healthy");
  await bench.exec(uid, "rm", "/tmp/ok");
  await until(() => seen.at(-1) === "unhealthy", 20_000, "a hint that it is unhealthy");
  listening.abort();
  await looking;
});

const testProgram = '#!/bin/sh\n[ "$@" ]\n';

test("the end of a guest is explained", async () => {
  const ends: [string[], RegExp][] = [
    [["no-such-program"], /^crash: its command was not found/],
    [["sh", "-c", "exit 3"], /^crash: its command ended with status 3$/],
    [["sh", "-c", "exit 0"], /^poweroff: /],
    [["sh", "-c", "x=0123456789; while :; do x=$x$x; done"], /^crash: it needed more memory than it has/],
  ];
  for (const [command, expected] of ends) {
    const { uid, handle } = await runGuest(await bench.makeApplication({ command }));
    expect(await untilStopped(uid)).toMatch(expected);
    await bench.driver().destroy(handle, noSignal);
  }
});

test("an image whose init cannot run in Docker is refused with what to do", async () => {
  const root = await bench.root({ "lib/systemd/systemd": "", "sbin/init": "" });
  if (root.type !== "image") throw new Error("no image");
  await run("ln", ["-sf", "/lib/systemd/systemd", join(root.path, "sbin/init")]);
  const spec = { ...(await bench.makeGuest()), root };
  await expect(bench.driver().create(spec, noSignal)).rejects.toMatchObject({
    code: "Invalid",
    message: expect.stringContaining("spec.application.command"),
  });
});

test("guests made at once share one import, and the last one takes the image with it", async () => {
  const since = (systemClock.now() / 1000).toFixed(3);
  const specs = await Promise.all([1, 2, 3, 4].map(() => bench.makeApplication({ command: serve })));
  const driver = bench.driver();
  await Promise.all(specs.map((spec) => driver.create(spec, noSignal)));
  const filters = encodeURIComponent(JSON.stringify({ type: ["image"], event: ["import"] }));
  const range = `since=${since}&until=${Math.ceil(systemClock.now() / 1000) + 1}`;
  const { body } = await bench.engine.get(`/events?${range}&filters=${filters}`);
  const text = typeof body === "string" ? body : JSON.stringify(body);
  expect(text.match(/"Action":"import"/g)).toHaveLength(1);
});

test("an import that is cut short leaves nothing", async () => {
  const layers = () => readdir(join(bench.engine.dir, "data/image/overlay2/layerdb/sha256")).catch(() => []);
  const files = { "sbin/init": tinyInit, "data/large": "0123456789abcdef".repeat(4_000_000) };
  const spec = await bench.makeGuest({}, files);
  const clean = await layers();
  const cancel = new AbortController();
  const making = bench.driver().create(spec, cancel.signal);
  const directories = join(bench.engine.dir, "data/overlay2");
  const had = (await readdir(directories)).length;
  await until(async () => (await readdir(directories)).length > had, 10_000, "the import's begin");
  cancel.abort(new Error("enough"));
  await expect(making).rejects.toThrow("enough");
  await bench.driver().destroy({ version: 1, uid: spec.uid }, noSignal);
  await until(async () => (await layers()).length === clean.length, 10_000, "its layer being dropped");
  await until(async () => (await readdir(directories)).length <= had, 10_000, "its files being dropped");
});

test("what is not ours is neither listed nor touched", async () => {
  const { engine } = bench;
  const spec = await bench.makeApplication({ command: serve, volumes: [{ name: "store", path: "/data" }] });
  const [mine, theirs] = [`${namespace}-${spec.uid}`, `${namespace}-${newUid(systemRandom)}`];
  const archive = (await run("tar", ["-c", "-C", "/usr/share/doc/base-files", "README"])).stdout;
  const image = "/images/create?fromSrc=-&repo=strata.local/others&tag=latest";
  expect((await engine.send("POST", image, Buffer.from(archive), "application/x-tar")).status).toBe(200);
  const labels = { "strata.namespace": "others", "strata.uid": newUid(systemRandom) };
  const wanted = { Image: "strata.local/others:latest", Cmd: ["/none"] };
  for (const [name, body] of [
    [mine, wanted],
    [theirs, { ...wanted, Labels: labels }],
  ] as const) {
    expect((await engine.send("POST", `/containers/create?name=${name}`, body)).status).toBe(201);
  }
  const volume = { Name: `${mine}-store` };
  expect((await engine.send("POST", "/volumes/create", volume)).status).toBe(201);

  const driver = bench.driver();
  expect(await driver.list()).toEqual([]);
  expect(await driver.inspect(spec.uid)).toBeUndefined();
  await expect(driver.create(spec, noSignal)).rejects.toMatchObject({ code: "Conflict" });
  await engine.send("DELETE", `/volumes/${mine}-store`);
  await expect(driver.create(spec, noSignal)).rejects.toMatchObject({ code: "Conflict" });
  await expect(driver.start({ version: 1, uid: spec.uid }, noSignal)).rejects.toMatchObject({
    code: "NotFound",
  });
  await driver.stop({ version: 1, uid: spec.uid }, { graceMs: 0 }, noSignal);
  await driver.destroy({ version: 1, uid: spec.uid }, noSignal);
  for (const name of [mine, theirs]) {
    expect((await engine.get(`/containers/${name}/json`)).status, name).toBe(200);
    await engine.send("DELETE", `/containers/${name}?force=1`);
  }
  expect((await engine.get("/images/strata.local/others:latest/json")).status).toBe(200);

  // An image of theirs under the name of ours.
  const digest = spec.root.type === "image" ? spec.root.digest.slice(7) : "";
  const tag = `/images/strata.local/others:latest/tag?repo=strata.local/${namespace}&tag=${digest}`;
  expect((await engine.send("POST", tag)).status).toBe(201);
  await expect(driver.create(spec, noSignal)).rejects.toMatchObject({ code: "Conflict" });
  await driver.destroy({ version: 1, uid: spec.uid }, noSignal);
  for (const name of [`${namespace}:${digest}`, "others:latest"]) {
    expect((await engine.send("DELETE", `/images/strata.local/${name}`)).status, name).toBe(200);
  }
});

test("guests outlive a restart of the Engine that restores them, network and hints included", async () => {
  const { uid } = await runGuest(await bench.makeApplication({ command: serve }));
  const driver = bench.driver();
  const first = await driver.inspect(uid);
  const listening = new AbortController();
  const hinted: Uid[] = [];
  const looking = (async () => {
    for await (const hint of driver.events(listening.signal)) hinted.push(hint.uid);
  })();
  await until(() => hinted.length > 0, 5_000, "the first hint");
  await bench.engine.restart();
  expect(await driver.inspect(uid)).toEqual(first);
  const [nic] = (await bench.makeGuest()).nics;
  expect(nic).toBeDefined();
  hinted.length = 0;
  await until(() => hinted.includes(uid), 20_000, "a hint after the restart");
  expect((await bench.tryExec(uid, "true")).status).toBe(0);
  hinted.length = 0;
  process.kill(await bench.pidOf(uid), "SIGKILL");
  await until(() => hinted.includes(uid), 5_000, "a hint of its death");
  listening.abort();
  await looking;
  expect(await untilStopped(uid)).toBe("crash: its command was killed by signal 9");
});

test("without an Engine there are no guests, and the reason is told", async () => {
  const driver = bench.driver();
  const spec = await bench.makeApplication({ command: serve });
  await driver.create(spec, noSignal);
  const elsewhere = bench.driverAt(join(bench.dir, "no.sock"));
  // One guest is on record, so nobody can tell.
  await expect(elsewhere.list()).rejects.toMatchObject({ code: "Unavailable" });
  await expect(elsewhere.inspect(spec.uid)).rejects.toMatchObject({ code: "Unavailable" });
  await driver.destroy({ version: 1, uid: spec.uid }, noSignal);
  expect(await elsewhere.list()).toEqual([]);
  expect(await elsewhere.inspect(spec.uid)).toBeUndefined();
  const fingerprint = await elsewhere.fingerprint(noSignal);
  expect(fingerprint).toMatchObject({
    available: false,
    message: expect.stringContaining("no Docker Engine answers at"),
  });
});

test("a guest of a warm image starts fast, and its traces go", async () => {
  const driver = bench.driver();
  const keep = await bench.makeGuest();
  await driver.create(keep, noSignal);
  const samples: Record<"create" | "start" | "inspect" | "stop" | "destroy", number[]> = {
    create: [],
    start: [],
    inspect: [],
    stop: [],
    destroy: [],
  };
  const timed = async (name: keyof typeof samples, action: () => Promise<unknown>) => {
    const begin = systemClock.monotonicMs();
    await action();
    samples[name].push(systemClock.monotonicMs() - begin);
  };
  for (let repeat = 0; repeat < 5; repeat++) {
    const spec = await bench.makeGuest();
    const handle = { version: 1, uid: spec.uid };
    await timed("create", () => driver.create(spec, noSignal));
    await timed("start", () => driver.start(handle, noSignal));
    await timed("inspect", () => driver.inspect(spec.uid));
    await bench.untilReady(spec.uid);
    await timed("stop", () => driver.stop(handle, { graceMs: 10_000 }, noSignal));
    await timed("destroy", () => driver.destroy(handle, noSignal));
  }
  const median = (values: number[]) => values.sort((a, b) => a - b)[2] ?? 0;
  const figures = Object.entries(samples).map(([name, values]) => `${name} ${median(values).toFixed(0)} ms`);
  console.info(`docker driver, medians of 5: ${figures.join(", ")}`);
  expect(median(samples.start)).toBeLessThan(5_000);
});
