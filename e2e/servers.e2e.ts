/**
 * Four servers by name on real guests: three containers and a virtual machine from one image, checked from inside
 * and from outside.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { projectKind } from "../src/kinds/project.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";

const stack = new URL("../examples/servers.yaml", import.meta.url).pathname;
const execute = promisify(execFile);

let daemon: TestDaemon;
let before: Snapshot;
let instances: Instance[];

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  const result = await daemon.strata(["up", stack, "--yes"], { timeoutMs: 900_000 });
  if (result.status !== 0) throw new Error(`${result.stderr}\n${(await daemon.log()).slice(-4000)}`);
  instances = await daemon.instances("servers");
}, 1_000_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 300_000);

const urlOf = (instance: Instance) => `http://${addressOf(instance)}:${instance.spec.services[0]?.port}`;
const named = (name: string) => {
  const instance = instances.find((one) => one.metadata.name === name);
  if (!instance) throw new Error(`there is no ${name}`);
  return instance;
};

describe("the stack of servers", () => {
  it("is three containers and a virtual machine from one image", () => {
    const shape = instances.map((one) => [one.metadata.name, one.spec.type, one.status.state]).sort();
    expect(shape).toEqual([
      ["enrollment-1", "container", "running"],
      ["enrollment-2", "container", "running"],
      ["enrollment-3", "container", "running"],
      ["lms", "vm", "running"],
    ]);
    expect(new Set(instances.map((one) => one.status.imageDigest)).size).toBe(1);
  });

  it("answers over HTTP, and each page says which instance it is", async () => {
    for (const instance of instances) {
      const page = await httpGet(`${urlOf(instance)}/`, 20_000);
      expect(page.status, instance.metadata.name).toBe(200);
      expect(page.text).toContain(instance.metadata.name);
    }
  });

  it("lists both types side by side, from one image", async () => {
    const { stdout } = await daemon.ok(["list", "-p", "servers"]);
    expect(stdout).toMatch(/enrollment-1\s+container\s+running/);
    expect(stdout).toMatch(/lms\s+vm\s+running/);
    const digest = instances[0]?.status.imageDigest?.slice(7, 19) ?? "none";
    expect(stdout.split(digest)).toHaveLength(5);
  });

  it("changes nothing when brought up again, and says so", async () => {
    const revisions = instances.map((one) => one.metadata.generation);
    const result = await daemon.ok(["up", stack]);
    expect(result.stderr + result.stdout).toContain("nothing to change");
    expect((await daemon.instances("servers")).map((one) => one.metadata.generation)).toEqual(revisions);
  });

  it("converges to the same four instances when 20 users bring it up at once", async () => {
    const results = await Promise.all(
      Array.from({ length: 20 }, () => daemon.strata(["up", stack, "--yes"])),
    );
    expect(results.filter((result) => result.status !== 0)).toEqual([]);
    const uids = (await daemon.instances("servers")).map((one) => one.metadata.uid).sort();
    expect(uids).toEqual(instances.map((one) => one.metadata.uid).sort());
  });

  it("lets commands run inside, with their exit status and streams", async () => {
    for (const name of ["enrollment-1", "lms"]) {
      const result = await daemon.strata([
        "exec",
        "-p",
        "servers",
        name,
        "--",
        "sh",
        "-c",
        "hostname; echo bad >&2; exit 7",
      ]);
      expect(result.status, result.stderr).toBe(7);
      expect(result.stdout.trim()).toBe(name);
      expect(result.stderr).toContain("bad");
    }
    const piped = await daemon.ok(["exec", "-p", "servers", "enrollment-1", "--", "wc", "-c"], {
      input: "x".repeat(100_000),
    });
    expect(piped.stdout.trim()).toBe("100000");
  });

  it("lets instances find one another by name, across types", async () => {
    for (const [from, to] of [
      ["enrollment-1", "lms"],
      ["lms", "enrollment-2"],
      ["enrollment-3", "enrollment-1.servers.internal"],
    ] as const) {
      const { stdout } = await daemon.ok(["exec", "-p", "servers", from, "--", "getent", "ahostsv4", to]);
      expect(stdout.split(/\s/)[0], `${from} asks for ${to}`).toBe(addressOf(named(to.split(".")[0] ?? "")));
    }
    const port = named("lms").spec.services[0]?.port;
    const fetchFrom = `import urllib.request; print(urllib.request.urlopen("http://lms:${port}/healthz").status)`;
    const { stdout } = await daemon.ok([
      "exec",
      "-p",
      "servers",
      "enrollment-1",
      "--",
      "python3",
      "-c",
      fetchFrom,
    ]);
    expect(stdout.trim()).toBe("200");
  });

  it("gives each guest an identity of its own", async () => {
    for (const file of ["/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"]) {
      const texts = await Promise.all(
        instances.map(
          async (one) =>
            (await daemon.ok(["exec", "-p", "servers", one.metadata.name, "--", "cat", file])).stdout,
        ),
      );
      expect(new Set(texts).size, file).toBe(4);
    }
  });

  it("has booted completely inside", async () => {
    for (const name of ["enrollment-1", "lms"]) {
      const { stdout } = await daemon.strata([
        "exec",
        "-p",
        "servers",
        name,
        "--",
        "systemctl",
        "is-system-running",
        "--wait",
      ]);
      expect(stdout.trim(), name).toBe("running");
    }
  });

  it("keeps data of the applications in their own databases", async () => {
    const [one, two] = [named("enrollment-1"), named("enrollment-2")];
    const courses = async (instance: Instance) =>
      JSON.parse((await httpGet(`${urlOf(instance)}/api/courses`)).text);
    const untouched = await courses(two);
    const [course] = await courses(one);
    const response = await fetch(`${urlOf(one)}/api/enrollments`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ course: course.id, student: "Ada Lovelace" }),
    });
    expect(response.status).toBe(201);
    const [after] = await courses(one);
    expect(after.enrolled).toBe(course.enrolled + 1);
    expect(await courses(two)).toEqual(untouched);
  });
});

describe("limits", () => {
  it("are what both types see inside and the kernel enforces outside", async () => {
    const lms = named("lms");
    const inside = async (name: string, ...command: string[]) =>
      (await daemon.ok(["exec", "-p", "servers", name, "--", ...command])).stdout.trim();
    expect(Number(await inside("lms", "nproc"))).toBe(lms.spec.cpus);
    const total = Number(/MemTotal:\s+(\d+)/.exec(await inside("lms", "cat", "/proc/meminfo"))?.[1]) / 1024;
    expect(total).toBeLessThanOrEqual(lms.spec.memoryMib);
    expect(total).toBeGreaterThan(lms.spec.memoryMib * 0.8);
    const disk = Number((await inside("enrollment-1", "df", "-m", "--output=size", "/")).split("\n").at(-1));
    expect(disk).toBeLessThanOrEqual(named("enrollment-1").spec.diskMib);
    const full = await daemon.strata([
      "exec",
      "-p",
      "servers",
      "enrollment-1",
      "--",
      "sh",
      "-c",
      "fallocate -l 100G /big || head -c 100G /dev/zero >/big",
    ]);
    expect(full.stderr).toMatch(/No space left|File too large/);
    await daemon.ok(["exec", "-p", "servers", "enrollment-1", "--", "rm", "-f", "/big"]);
  });
});

describe("a guest that dies", () => {
  it("is seen within 2 s, started again by its policy with back-off, and keeps its address", async () => {
    const victim = named("enrollment-3");
    for (let crash = 1; crash <= 2; crash++) {
      const pid = await initPid(victim);
      const killed = systemClock.monotonicMs();
      process.kill(pid, "SIGKILL");
      let seenMs = 0;
      await until(
        "the death is reported",
        async () => {
          const now = await daemon.client.require(instanceKind, {
            project: "servers",
            name: victim.metadata.name,
          });
          seenMs = systemClock.monotonicMs() - killed;
          return now.status.crashes >= crash || now.status.state === "backoff";
        },
        10_000,
      );
      console.log(`death ${crash} of a guest seen after ${Math.round(seenMs)} ms`);
      expect(seenMs).toBeLessThan(2_000);
      await until(
        "it serves again",
        async () => (await httpGet(`${urlOf(victim)}/healthz`)).status === 200,
        60_000,
        100,
      );
    }
    const after = await daemon.client.require(instanceKind, {
      project: "servers",
      name: victim.metadata.name,
    });
    expect(after.status).toMatchObject({ state: "running", crashes: 2, recentCrashes: 2 });
    expect(addressOf(after)).toBe(addressOf(victim));
    const others = await daemon.instances("servers");
    expect(others.filter((one) => one.status.crashes > 0).map((one) => one.metadata.name)).toEqual([
      "enrollment-3",
    ]);
  });
});

describe("down", () => {
  it("removes all of the stack and nothing else", async () => {
    await daemon.ok(["project", "create", "bystander"]);
    const result = await daemon.ok(["down", stack, "--yes"]);
    expect(result.stdout + result.stderr).toContain("gone");
    expect(await daemon.instances()).toEqual([]);
    const projects = (await daemon.client.list(projectKind, {})).items.map((one) => one.metadata.name);
    expect(projects.sort()).toEqual(["bystander", "default"]);
    const again = await daemon.ok(["down", stack, "--yes"]);
    expect(again.stdout + again.stderr).toContain("nothing");
  });
});

/** The host's pid of a container's init, from its control group: the one whose parent is outside of it. */
async function initPid(instance: Instance): Promise<number> {
  const { stdout } = await execute("sh", [
    "-c",
    `find /sys/fs/cgroup -path "*$1/$2*" -name cgroup.procs -exec cat {} + | sort -un`,
    "sh",
    daemon.settings.namespace,
    instance.metadata.uid,
  ]);
  for (const pid of stdout.split("\n").filter(Boolean)) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    if (/^NSpid:\s+\d+\s+1$/m.test(status)) return Number(pid);
  }
  throw new Error(`${instance.metadata.name} has no init`);
}
