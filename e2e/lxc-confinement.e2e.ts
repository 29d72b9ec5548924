/** What a container may do and may not, asserted from inside it and from the host. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Uid } from "../src/core/ids.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { GuestDriver, GuestSpec } from "../src/drivers/driver.ts";
import { run } from "../src/host/run.ts";
import { idBase, LxcBench, type TreeFiles } from "./lxc-bench.ts";

const noSignal = new AbortController().signal;
let bench: LxcBench;
let driver: GuestDriver;

beforeAll(async () => {
  bench = await LxcBench.open("e2e-lxc-conf");
  driver = bench.driver();
});
afterEach(async () => {
  for (const guest of await driver.list()) {
    await driver.destroy(guest.handle, noSignal);
    await bench.forgetGuest(guest.uid);
  }
  expect(await bench.leaks()).toEqual([]);
});
afterAll(() => bench?.dispose());

async function boot(
  overrides: Partial<GuestSpec> = {},
  files: TreeFiles = {},
): Promise<{ uid: Uid; spec: GuestSpec }> {
  const spec = await bench.makeGuest(overrides, files);
  await driver.start(await driver.create(spec, noSignal), noSignal);
  await bench.untilReady(spec.uid);
  return { uid: spec.uid, spec };
}

const handleOf = (uid: Uid) => ({ version: driver.handleVersion, uid });
/** Runs a script in the guest and gives its output, whatever its status. */
const sh = async (uid: Uid, script: string) => {
  const { stdout, stderr } = await bench.tryExec(uid, "sh", "-c", script);
  return stdout + stderr;
};

async function guestNic(uid: Uid) {
  const record = await readFile(join(bench.host.stateDir, "lxc", uid, "guest.json"), "utf8");
  return (JSON.parse(record) as GuestSpec).nics[0];
}

async function text(stream: AsyncIterable<Buffer> | undefined): Promise<string> {
  let all = "";
  for await (const chunk of stream ?? []) all += chunk;
  return all;
}

describe("limits", () => {
  test("CPU time, measured by the kernel while two loops run", async () => {
    const { uid } = await boot({ cpus: 1 });
    const group = `${bench.host.namespace}/${uid}`;
    void bench.tryExec(
      uid,
      "sh",
      "-c",
      "(while :; do :; done) & (while :; do :; done) & sleep 2; kill $!; kill %1",
    );
    await until(async () => (await bench.cgroups.usage(group)).processes >= 5, 5_000, "the loops");
    const before = { at: performance.now(), ...(await bench.cgroups.usage(group)) };
    await until(() => performance.now() - before.at > 1_000, 5_000, "a second");
    const after = { at: performance.now(), ...(await bench.cgroups.usage(group)) };
    expect((after.cpuMicros - before.cpuMicros) / 1_000 / (after.at - before.at)).toBeLessThan(1.15);
  });

  test("memory: who takes too much is killed, the rest lives on", async () => {
    const { uid } = await boot({ memoryMib: 32 });
    const before = await driver.inspect(uid);
    expect((await bench.tryExec(uid, "sh", "-c", "exec tail -c 64000000 /dev/zero")).status).toBe(137);
    expect(await driver.inspect(uid)).toEqual(before);
    expect((await bench.cgroups.usage(`${bench.host.namespace}/${uid}`)).memoryBytes).toBeLessThanOrEqual(
      32 * 1024 ** 2,
    );
  });

  test("processes: fork fails at the limit and works again below it", async () => {
    const { uid } = await boot({ maxProcesses: 20 });
    const output = await sh(
      uid,
      "i=0; while [ $i -lt 40 ]; do sleep 1000 > /dev/null 2>&1 & i=$((i+1)); done",
    );
    expect(output).toMatch(/can't fork|Resource temporarily unavailable/);
    expect((await bench.cgroups.usage(`${bench.host.namespace}/${uid}`)).processes).toBeLessThanOrEqual(20);
    await driver.stop(handleOf(uid), { graceMs: 0 }, noSignal);
    await driver.start(handleOf(uid), noSignal);
    await bench.untilReady(uid);
    expect(await bench.exec(uid, "echo", "again")).toBe("again\n");
  });

  test("the guest sees nothing above its own cgroup and cannot lift the limits", async () => {
    const { uid } = await boot({ memoryMib: 32 });
    expect(await bench.exec(uid, "cat", "/proc/1/cgroup")).not.toContain(uid);
    const mounting =
      bench.cgroups.layout === "v2"
        ? "mount -t cgroup2 cgroup /mnt; echo max > /mnt/memory.max; cat /mnt/memory.max"
        : "mount -t cgroup -o memory cgroup /mnt; echo -1 > /mnt/memory.limit_in_bytes; ls /mnt/..";
    await sh(uid, `mkdir -p /mnt; ${mounting}`);
    expect((await bench.observeSpec(uid)).memoryMib).toBe(32);
    expect((await bench.tryExec(uid, "sh", "-c", "exec tail -c 64000000 /dev/zero")).status).toBe(137);
  });

  test("the guest finds its limits where programs look for them, and cannot change them", async () => {
    const { uid } = await boot({ memoryMib: 48, cpus: 2, maxProcesses: 77 });
    const group = "/sys/fs/cgroup";
    const look =
      bench.cgroups.layout === "v2"
        ? `mount -t cgroup2 cgroup /mnt; cd /mnt; cat memory.max cpu.max pids.max; echo max > memory.max 2>/dev/null; cat memory.max`
        : `mkdir /mnt/m /mnt/p; mount -t cgroup -o memory cgroup /mnt/m; mount -t cgroup -o pids cgroup /mnt/p;
           cat /mnt/m/memory.limit_in_bytes; cat /mnt/p/pids.max`;
    const output = await sh(uid, `mkdir -p ${group} /mnt; mount -t tmpfs t /mnt; ${look}`);
    expect(output).toContain(String(48 * 1024 ** 2));
    expect(output).toContain("77");
    if (bench.cgroups.layout === "v2") expect(output.trim().split("\n").at(-1)).toBe(String(48 * 1024 ** 2));
  });
});

describe("changes while it runs", () => {
  test("a reboot from inside keeps cards that came and sizes that changed", async () => {
    const { uid, spec } = await boot();
    const [near, far] = [bench.card("same"), bench.card("another")];
    for (const nic of [near, far]) await driver.cards?.attach(handleOf(uid), nic, noSignal);
    await driver.cards?.detach(handleOf(uid), near, noSignal);
    await driver.resize?.apply(handleOf(uid), { cpus: 2, memoryMib: 96 }, noSignal);
    const before = await driver.inspect(uid);
    await bench.tryExec(uid, "reboot", "-f");
    const rebooted = async () => {
      const now = await driver.inspect(uid);
      return now?.state === "running" && now.pid !== undefined && now.pid !== before?.pid;
    };
    await until(rebooted, 20_000, "the guest being back");
    await bench.untilReady(uid);
    expect((await driver.inspect(uid))?.runId).toBe(before?.runId);
    expect((await bench.observeCards(uid)).sort()).toEqual([spec.nics[0]?.macAddress, far.macAddress].sort());
    expect(await bench.reachesCard(far)).toBe(true);
    expect(await bench.observeSize(uid)).toEqual({ cpus: 2, memoryMib: 96 });
  });

  test("less memory than is in use is refused, and nothing happens to the guest", async () => {
    const { uid } = await boot({ cpus: 2, memoryMib: 96 });
    await sh(uid, "mkdir -p /big && mount -t tmpfs big /big && head -c 60000000 /dev/zero > /big/file");
    const before = await driver.inspect(uid);
    const smaller = { cpus: 1, memoryMib: 32 };
    await expect(driver.resize?.apply(handleOf(uid), smaller, noSignal)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining("32 MiB"),
    });
    expect(await bench.observeSize(uid)).toEqual({ cpus: 2, memoryMib: 96 });
    expect(await driver.inspect(uid)).toEqual(before);
    await sh(uid, "rm /big/file");
    await driver.resize?.apply(handleOf(uid), smaller, noSignal);
    expect(await bench.observeSize(uid)).toEqual(smaller);
    expect(await bench.exec(uid, "echo", "alive")).toBe("alive\n");
  });

  test("a card takes along all that it brought", async () => {
    const { uid } = await boot();
    const look = "ip -o link; ip route show table all; ip rule; ip -6 route show table all; ip -6 rule";
    const stable = async () => (await sh(uid, look)).replaceAll(/expires \S+|fe80\S*|ff00\S*/g, "");
    const before = await stable();
    const card = bench.card("another");
    await driver.cards?.attach(handleOf(uid), card, noSignal);
    expect(await stable()).not.toBe(before);
    await driver.cards?.detach(handleOf(uid), card, noSignal);
    expect(await stable()).toBe(before);
    await expect(
      driver.cards?.detach(handleOf(uid), (await guestNic(uid)) ?? card, noSignal),
    ).rejects.toMatchObject({ code: "Invalid" });
  });
});

describe("isolation", () => {
  test("root inside is nobody outside, without capabilities over the host", async () => {
    const { uid } = await boot();
    const status = await readFile(`/proc/${await bench.pidOf(uid)}/status`, "utf8");
    expect(status).toMatch(new RegExp(`^Uid:\\t${idBase}\\t${idBase}\\t`, "m"));
    expect(status).toMatch(/^Seccomp:\t2$/m);
    const own = await readlink("/proc/self/ns/user");
    expect(await readlink(`/proc/${await bench.pidOf(uid)}/ns/user`)).not.toBe(own);
  });

  test("where the host has AppArmor, it is confined by it", async () => {
    const { uid } = await boot();
    const label = await readFile(`/proc/${await bench.pidOf(uid)}/attr/current`, "utf8").catch(() => "none");
    const { facts } = await driver.fingerprint(noSignal);
    if (facts.apparmor === "yes") expect(label.trim()).toBe("lxc-strata-container (enforce)");
    else expect(label).not.toContain("enforce");
  });

  test("no descriptor of the host is open in the guest, at boot and in commands", async () => {
    const { uid } = await boot();
    const pid = await bench.pidOf(uid);
    for (const fd of await readdir(`/proc/${pid}/fd`)) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`);
      expect(target).toMatch(/^(\/dev\/(pts\/\d+|console|null)|\/sbin\/init|\/dev\/tty)$/);
    }
    // A terminal in the daemon makes a descriptor that is inherited.
    const terminal = await driver.exec?.run(
      handleOf(uid),
      { command: ["cat"], env: {}, tty: { columns: 80, rows: 24 } },
      noSignal,
    );
    const listed = await bench.exec(
      uid,
      "sh",
      "-c",
      "cd /proc/$$/fd; for fd in *; do if [ -L $fd ]; then echo $fd; fi; done",
    );
    expect(
      listed
        .trim()
        .split("\n")
        .map(Number)
        .filter((fd) => fd > 2 && fd !== 10),
    ).toEqual([]);
    terminal?.stdin.write("\u0004");
    expect(await terminal?.exit).toBe(0);
  });

  test("the environment of a command is the command's alone", async () => {
    const { uid } = await boot();
    // Read by the loader and by bash, were they in the environment of the programs that run on the host.
    const env = { LD_PRELOAD: "/nowhere/evil.so", BASH_ENV: "/nowhere/evil.sh", LD_DEBUG: "libs" };
    const session = await driver.exec?.run(handleOf(uid), { command: ["env"], env }, noSignal);
    session?.stdin.end();
    const texts = await Promise.all([text(session?.stdout), text(session?.stderr)]);
    expect(texts[0]).toContain("LD_PRELOAD=/nowhere/evil.so\n");
    expect(texts[1]).toBe("");
  });

  test("the seed can be read by root, and neither be changed nor made writable", async () => {
    const { uid } = await boot();
    const seed = "/var/lib/cloud/seed/nocloud";
    expect(await bench.exec(uid, "cat", `${seed}/user-data`)).toBe("#cloud-config\n");
    const attempts = [
      `mount -o remount,rw ${seed}`,
      `echo x > ${seed}/user-data`,
      `echo x > ${seed}/new`,
      `chmod 777 ${seed}`,
      `umount ${seed} && echo x > ${seed}/user-data && false`,
    ];
    for (const attempt of attempts)
      expect((await bench.tryExec(uid, "sh", "-c", attempt)).status).not.toBe(0);
    const outside = join(bench.host.stateDir, "lxc", uid, "seed");
    expect(await readdir(outside)).toEqual(["meta-data", "network-config", "user-data"]);
    expect(await readFile(join(outside, "user-data"), "utf8")).toBe("#cloud-config\n");
  });

  test.each([
    ["a device node", "mknod /dev/sda b 8 0"],
    ["the kernel's settings", "echo 1 > /proc/sys/kernel/panic"],
    ["the magic key", "echo b > /proc/sysrq-trigger"],
    ["the clock", "date -s 2001-01-01; test $(date +%Y) = 2001"],
    ["a file system from a device", "mount -t ext4 /dev/vda /mnt"],
    ["the host's file systems", "ls /proc/1/root/../../../var/tmp/e2e-lxc-conf*"],
    ["kernel memory", "cat /dev/mem || cat /proc/kcore"],
  ])("cannot have %s", async (_title, attempt) => {
    const { uid } = await boot();
    expect((await bench.tryExec(uid, "sh", "-c", `mkdir -p /mnt; ${attempt}`)).status).not.toBe(0);
  });

  test("a guest without network cards has nothing but loopback", async () => {
    const { uid } = await boot({ nics: [] });
    const links = await bench.exec(uid, "ip", "-o", "link");
    expect(links.trim().split("\n")).toHaveLength(1);
    expect(links).toContain("lo:");
    expect(await bench.exec(uid, "ping", "-c1", "-W1", "127.0.0.1")).toContain("1 packets received");
  });
});

describe("network", () => {
  test("reaches its gateway and its neighbour, by the addresses given, from its start", async () => {
    const [one, two] = [await boot(), await boot()];
    const address = two.spec.nics[0]?.ipAddress ?? "";
    for (const { spec } of [one, two])
      for (const nic of spec.nics) expect(await bench.reachesCard(nic)).toBe(true);
    expect(await bench.exec(one.uid, "ping", "-c1", "-W2", "10.213.77.1")).toContain("1 packets received");
    expect(await bench.exec(one.uid, "ping", "-c1", "-W2", address)).toContain("1 packets received");
    const neighbour = two.spec.nics[0]?.ipv6?.address ?? "";
    expect(await bench.exec(one.uid, "ping", "-6", "-c1", "-W2", neighbour)).toContain("1 packets received");
    const shown = await bench.exec(two.uid, "ip", "addr", "show", "dev", "eth0");
    expect(shown).toContain(`inet ${address}/24 brd 10.213.77.255`);
    expect(shown).toContain("mtu 1450");
    expect(shown).toContain(`inet6 ${neighbour}/128`);
    expect(shown).not.toMatch(/inet6 fd.*tentative/);
    expect(shown).toContain(two.spec.nics[0]?.macAddress);
    const ports = await run("ip", ["-n", bench.netns, "-o", "link", "show", "master", "br0"]);
    expect(ports.stdout.trim().split("\n")).toHaveLength(2);
  });
});

describe("runs", () => {
  test("a reboot from inside brings it back, in the same run, with its network", async () => {
    const { uid } = await boot();
    const before = await driver.inspect(uid);
    await bench.tryExec(uid, "reboot", "-f");
    await until(
      async () => {
        const now = await driver.inspect(uid);
        return now?.state === "running" && now.pid !== undefined && now.pid !== before?.pid;
      },
      20_000,
      "the guest being back",
    );
    await bench.untilReady(uid);
    expect((await driver.inspect(uid))?.runId).toBe(before?.runId);
    expect(await bench.exec(uid, "ping", "-c1", "-W2", "10.213.77.1")).toContain("1 packets received");
    await bench.tryExec(uid, "poweroff", "-f");
    await until(async () => (await driver.inspect(uid))?.state === "stopped", 5_000, "the end");
    expect((await driver.inspect(uid))?.exit?.reason).toBe("poweroff");
  });

  test.each(["monitor", "recorder"])(
    "a killed %s is a crash, told within a second, and it starts again",
    async (role) => {
      const { uid } = await boot();
      const listening = new AbortController();
      const states: (string | undefined)[] = [];
      const looking = (async () => {
        for await (const hint of driver.events(listening.signal)) {
          if (hint.uid === uid) states.push((await driver.inspect(uid))?.state);
        }
      })();
      await until(() => states.length > 0, 1_000, "the first look");
      const [victim] = await bench.cgroups.pids(`${bench.host.namespace}.monitors/${uid}/${role}`);
      process.kill(victim ?? 0, "SIGKILL");
      // Without a recorder the guest goes on until it ends.
      if (role === "recorder") process.kill(await bench.pidOf(uid), "SIGKILL");
      await until(() => states.at(-1) === "stopped", 1_000, "an inspection that says stopped");
      expect((await driver.inspect(uid))?.exit?.reason).toBe("crash");
      listening.abort();
      await looking;
      await driver.start(handleOf(uid), noSignal);
      await bench.untilReady(uid);
      expect(await bench.exec(uid, "echo", "again")).toBe("again\n");
    },
  );

  test("says why it cannot start", async () => {
    const spec = await bench.makeGuest();
    const nics = spec.nics.map((nic) => ({ ...nic, bridge: "br-none" }));
    const handle = await driver.create({ ...spec, nics }, noSignal);
    await expect(driver.start(handle, noSignal)).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("cannot start"),
    });
    expect(await driver.inspect(spec.uid)).toMatchObject({ state: "stopped", exit: { reason: "crash" } });
    await driver.create(spec, noSignal);
    await driver.start(handle, noSignal);
    expect((await driver.inspect(spec.uid))?.state).toBe("running");
  });

  test("an init that fails is a crash with its status", async () => {
    const spec = await bench.makeGuest({}, { "sbin/init": "#!/bin/sh\nexit 7\n" });
    const handle = await driver.create(spec, noSignal);
    await driver.start(handle, noSignal);
    await until(async () => (await driver.inspect(spec.uid))?.state === "stopped", 5_000, "its end");
    expect((await driver.inspect(spec.uid))?.exit).toEqual({
      reason: "crash",
      message: "its init ended with status 7",
    });
  });
});

describe("console", () => {
  test("attaching gives a shell on the guest's terminal", async () => {
    const { uid } = await boot();
    const stream = await driver.console?.attach(handleOf(uid), noSignal);
    let text = "";
    stream?.on("data", (chunk) => {
      text += chunk;
    });
    stream?.write("echo $((6 * 7))\r");
    await until(() => text.includes("\n42\r"), 5_000, "the answer");
    stream?.destroy();
  });

  test("a flood on the console stays bounded and stops nothing", async () => {
    const { uid } = await boot();
    await bench.exec(
      uid,
      "sh",
      "-c",
      "yes 0123456789abcdef0123456789abcdef | head -c 5000000 > /dev/console",
    );
    const sizes = await run("du", ["-sk", join(bench.host.stateDir, "lxc", uid, "console")]);
    expect(Number(sizes.stdout.split("\t")[0])).toBeLessThan(2_300);
    expect(await bench.exec(uid, "echo", "alive")).toBe("alive\n");
  });

  test("following the log goes on across the change of files", async () => {
    const { uid } = await boot();
    const following = new AbortController();
    let text = "";
    const reading = (async () => {
      const log = driver.console?.log(handleOf(uid), { tailBytes: 0, follow: true }, following.signal);
      for await (const chunk of log ?? []) text += Buffer.from(chunk).toString("latin1");
    })();
    for (let round = 0; round < 4; round++) {
      const script = `i=0; while [ $i -lt 10000 ]; do echo "line ${round}-$i ........................................"; i=$((i+1)); done > /dev/console`;
      await bench.exec(uid, "sh", "-c", script);
      await until(() => text.includes(`line ${round}-9999`), 10_000, `the last line of round ${round}`);
    }
    following.abort();
    await reading;
    for (const line of ["0-0", "0-9999", "1-5000", "2-1", "3-9998"]) expect(text).toContain(`line ${line} `);
  });
});
