/** The QEMU driver with real virtual machines: what only this driver promises (the rest: qemu-conformance-*.e2e.ts). */
import { once } from "node:events";
import { access, chmod, mkdtemp, readdir, readFile, readlink, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { isJsonObject, type JsonObject } from "../src/core/json.ts";
import { systemRandom } from "../src/core/random.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { ExecSession, GuestDriver, GuestSpec } from "../src/drivers/driver.ts";
import { QmpClient } from "../src/drivers/qemu/qmp-client.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { probeKvm } from "../src/host/probes/kvm.ts";
import { run } from "../src/host/run.ts";
import { imageDir, QemuBench } from "./qemu-bench.ts";
import { bootMarker, makeQemuGuest } from "./qemu-guest.ts";
import { readyMs } from "./qemu-harness.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

describe("a virtual machine", () => {
  let bench: QemuBench;
  let driver: GuestDriver;
  const { signal } = new AbortController();

  beforeAll(async () => {
    bench = await QemuBench.create();
    driver = await openTestDriver(bench.host);
  });
  afterEach(async () => {
    for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
    expect(await bench.leaks()).toEqual([]);
  });
  afterAll(() => bench?.dispose());

  async function boot(overrides: Partial<GuestSpec> = {}, words = "") {
    const spec = await bench.makeGuest(overrides, words);
    const handle = await driver.create(spec, signal);
    await driver.start(handle, signal);
    await bench.untilReady(spec.uid, readyMs);
    return { spec, uid: spec.uid, handle };
  }

  async function ask(handle: JsonObject, script: string): Promise<string> {
    const session = await driver.exec?.run(handle, { command: ["sh", "-c", script], env: {} }, signal);
    session?.stdin.end();
    return session === undefined ? "" : await text(session.stdout);
  }

  it("has the CPUs and the memory that were asked for, seen from inside and from outside", async () => {
    const { uid, handle } = await boot({ cpus: 2, memoryMib: 256 });
    expect(await ask(handle, "nproc")).toBe("2\n");
    const totalKib = Number(/MemTotal:\s+(\d+)/.exec(await ask(handle, "cat /proc/meminfo"))?.[1]);
    expect(totalKib).toBeGreaterThan(200 * 1024);
    expect(totalKib).toBeLessThan(256 * 1024);

    const group = `${bench.host.namespace}/${uid}`;
    const cgroups = await openCgroups({ clock: systemClock });
    const members = await cgroups.pids(group);
    expect(members).toContain(await bench.pidOf(uid));
    expect(members).toHaveLength(2); // QEMU and its keeper

    // Three busy loops on two CPUs: QEMU as a whole gets no more than two.
    const before = await cgroups.usage(group);
    const startedAt = systemClock.monotonicMs();
    await ask(handle, "for i in 1 2 3; do timeout 3 sh -c 'while :; do :; done' & done; wait");
    const after = await cgroups.usage(group);
    const elapsedMicros = (systemClock.monotonicMs() - startedAt) * 1000;
    expect((after.cpuMicros - before.cpuMicros) / elapsedMicros).toBeLessThan(2.1);
    expect(after.memoryBytes).toBeLessThan((256 + 160 + 16 + 2 + 256 + 4) * 1024 ** 2);
  });

  it("grows and shrinks within its bounds, its control group with it", async () => {
    const { uid, handle } = await boot({ cpus: 1, memoryMib: 160 });
    const apply = (cpus: number, memoryMib: number) =>
      driver.resize?.apply(handle, { cpus, memoryMib }, signal);
    const limit = await bench.memoryLimitMib(uid);
    await apply(2, 416);
    expect(await bench.memoryLimitMib(uid)).toBeGreaterThan(limit + 255);
    const grown = await bench.observeSize(uid);
    expect(grown.cpus).toBe(2);

    // What is in use cannot be given back; then nothing has changed.
    await ask(
      handle,
      "mkdir /big; mount -t tmpfs -o size=90% big /big; head -c 200000000 /dev/zero > /big/file",
    );
    await expect(apply(1, 160)).rejects.toMatchObject({ code: "Conflict" });
    expect(await bench.observeSize(uid)).toEqual(grown);
    expect(await bench.memoryLimitMib(uid)).toBeGreaterThan(limit + 255);
    await ask(handle, "rm /big/file");
    await apply(1, 160);
    expect((await bench.observeSize(uid)).cpus).toBe(1);
    expect(await bench.memoryLimitMib(uid)).toBe(limit);

    for (const [cpus, memoryMib] of [
      [1, 128],
      [9, 160],
      [1, 160 + 1024 + 4],
    ] as const) {
      await expect(apply(cpus, memoryMib)).rejects.toMatchObject({ code: "Unsupported" });
    }
    expect((await driver.inspect(uid))?.state).toBe("running");
  });

  it("is as likely to be ended by the host's OOM killer as any process, whatever the daemon is", async () => {
    // Lower than one's own needs a capability that not every host of tests gives; the way back is the same.
    await writeFile("/proc/self/oom_score_adj", "100");
    try {
      const { uid } = await boot();
      const cgroups = await openCgroups({ clock: systemClock });
      for (const pid of await cgroups.pids(`${bench.host.namespace}/${uid}`)) {
        expect(await readFile(`/proc/${pid}/oom_score_adj`, "utf8")).toBe("0\n");
      }
    } finally {
      await writeFile("/proc/self/oom_score_adj", "0");
    }
  });

  it("gets one CPU's time however much it asks for", async () => {
    const { uid, handle } = await boot({ cpus: 1 });
    const group = `${bench.host.namespace}/${uid}`;
    const cgroups = await openCgroups({ clock: systemClock });
    const before = await cgroups.usage(group);
    const startedAt = systemClock.monotonicMs();
    await ask(
      handle,
      "timeout 3 sh -c 'while :; do :; done'; dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null",
    );
    const after = await cgroups.usage(group);
    const elapsedMicros = (systemClock.monotonicMs() - startedAt) * 1000;
    expect((after.cpuMicros - before.cpuMicros) / elapsedMicros).toBeLessThan(1.1);
  });

  it("runs confined: a user of its own, no capability, no way to gain one, system calls filtered", async () => {
    const one = await boot();
    const two = await boot();
    const users = new Set<string>();
    for (const { uid } of [one, two]) {
      for (const pid of await (await openCgroups({ clock: systemClock })).pids(
        `${bench.host.namespace}/${uid}`,
      )) {
        const status = await readFile(`/proc/${pid}/status`, "utf8");
        const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1] ?? "";
        users.add(field("Uid"));
        expect(field("Uid")).toBe(field("Gid"));
        expect(field("Groups").trim()).toBe("");
        for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) {
          expect(Number.parseInt(field(set), 16)).toBe(0);
        }
        expect(field("NoNewPrivs")).toBe("1");
      }
      const pid = await bench.pidOf(uid);
      expect(await readFile(`/proc/${pid}/status`, "utf8")).toMatch(/^Seccomp:\s*2$/m);
      expect(await readlink(`/proc/${pid}/cwd`)).toBe("/");
      const inside = await readlink(`/proc/${pid}/ns/net`);
      const { stdout } = await run("nsenter", [`--net=${bench.netns}`, "readlink", "/proc/self/ns/net"]);
      expect(inside).toBe(stdout.trim());
    }
    expect(users.size).toBe(2);
  });

  it("reaches the other guests of its network", async () => {
    const one = await boot();
    const two = await boot();
    const [from, to] = [one.spec.nics[0], two.spec.nics[0]];
    await ask(two.handle, `ip address add ${to?.ipAddress}/24 dev eth0`);
    await ask(one.handle, `ip address add ${from?.ipAddress}/24 dev eth0`);
    expect(await ask(one.handle, `ping -c 1 -W 5 ${to?.ipAddress}`)).toContain("1 packets received");
    expect(await ask(one.handle, "cat /sys/class/net/eth0/mtu")).toBe("1450\n");
    expect(await ask(one.handle, "cat /sys/class/net/eth0/address")).toBe(`${from?.macAddress}\n`);
  });

  it("finds its seed and its own disk, and keeps what it wrote across a power cut", async () => {
    const { uid, handle } = await boot();
    const seed = await ask(handle, "mount -t iso9660 -o ro /dev/vdb /mnt && cat /mnt/meta-data; umount /mnt");
    expect(seed).toBe(`instance-id: ${uid}\n`);
    await ask(handle, "echo kept | dd of=/dev/vda bs=512 seek=100 conv=fsync 2>/dev/null");
    process.kill(await bench.pidOf(uid), "SIGKILL");
    await until(async () => (await driver.inspect(uid))?.state === "stopped", 5_000, "the end of the guest");
    await driver.start(handle, signal);
    await until(
      async () => (await bench.consoleText(uid)).split(bootMarker).length === 3,
      readyMs,
      "the second boot",
    );
    expect(await ask(handle, "dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | head -n 1")).toBe(
      "kept\n",
    );
  });

  it("stays the same run when it resets itself", async () => {
    const { uid } = await boot();
    const before = await driver.inspect(uid);
    await bench.type(uid, "reboot -f");
    await until(
      async () => (await bench.consoleText(uid)).split(bootMarker).length === 3,
      readyMs,
      "the second boot",
    );
    expect(await driver.inspect(uid)).toEqual(before);
  });

  it("has crashed when its kernel panics", async () => {
    const { uid } = await boot({}, "panic=0");
    await bench.type(uid, "echo c > /proc/sysrq-trigger");
    await until(
      async () => (await driver.inspect(uid))?.state === "stopped",
      readyMs,
      "the end of the guest",
    );
    expect((await driver.inspect(uid))?.exit).toEqual({
      reason: "crash",
      message: "the guest's kernel panicked",
    });
  });

  it("ends its run for good without anybody watching", async () => {
    const { uid } = await boot();
    const pid = await bench.pidOf(uid);
    await bench.type(uid, "poweroff -f");
    // No driver is asked in between: QEMU is gone, its memory with it.
    await until(
      () =>
        access(`/proc/${pid}`).then(
          () => false,
          () => true,
        ),
      readyMs,
      "the end of QEMU",
    );
    const successor = await openTestDriver(bench.host);
    expect((await successor.inspect(uid))?.exit).toEqual({
      reason: "poweroff",
      message: "the guest shut itself down",
    });
  });

  it("boots a disk by itself, without a network", async () => {
    const directory = await mkdtemp("/var/tmp/strata-disk-");
    try {
      const disk = join(directory, "disk.raw");
      await writeFile(disk, bootSector("the boot sector speaks"));
      const spec = await bench.makeGuest({ root: { type: "disk", path: disk, format: "raw" }, nics: [] });
      const handle = await driver.create(spec, signal);
      await driver.start(handle, signal);
      await until(
        async () => (await bench.consoleText(spec.uid)).includes("the boot sector speaks"),
        readyMs,
        "the boot of a disk",
      );
      const pid = await bench.pidOf(spec.uid);
      const { stdout } = await run("nsenter", [`--net=/proc/${pid}/ns/net`, "ip", "-o", "link"]);
      expect(stdout.trim().split("\n")).toHaveLength(1); // lo
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("says why it cannot start, and is as it was before", async () => {
    const spec = await bench.makeGuest();
    const handle = await driver.create(spec, signal);
    if (spec.root.type !== "disk") throw new Error("a disk");
    await rename(spec.root.path, `${spec.root.path}.away`);
    await expect(driver.start(handle, signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("root disk"),
    });
    expect(await driver.inspect(spec.uid)).toEqual({ uid: spec.uid, handle, state: "created" });
    await rename(`${spec.root.path}.away`, spec.root.path);

    const other = await bench.makeGuest({ config: { cpuModel: "no-such-cpu" }, nics: [] });
    await expect(driver.create({ ...other, config: { colour: "red" } }, signal)).rejects.toMatchObject({
      code: "Invalid",
    });
  });

  it("is not given what its disk's header asks for later", async () => {
    const spec = await bench.makeGuest();
    const handle = await driver.create(spec, signal);
    if (spec.root.type !== "disk") throw new Error("a disk");
    // As a QEMU that was taken over could: it has the file open for writing.
    await run("qemu-img", ["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", spec.root.path]);
    await driver.start(await driver.create(spec, signal), signal);
    const directory = `/proc/${await bench.pidOf(spec.uid)}/fd`;
    const open = await Promise.all((await readdir(directory)).map((fd) => readlink(join(directory, fd))));
    expect(open).toContain(spec.root.path);
    expect(open).not.toContain("/etc/passwd");
    await driver.destroy(handle, signal);
  });

  it("does not share its disk: a second guest on it cannot start", async () => {
    const one = await boot();
    const thief = await bench.makeGuest({ root: one.spec.root });
    const handle = await driver.create(thief, signal);
    await expect(driver.start(handle, signal)).rejects.toMatchObject({
      message: expect.stringMatching(/could not start .*lock/),
    });
    expect((await driver.inspect(one.uid))?.state).toBe("running");
  });

  it("waits while the host has no space for its disk, and goes on when there is some", async () => {
    const directory = await mkdtemp("/var/tmp/strata-full-");
    await run("mount", ["-t", "tmpfs", "-o", "size=16m", "tmpfs", directory]);
    try {
      const disk = join(directory, "disk.qcow2");
      await run("qemu-img", ["create", "-q", "-f", "qcow2", disk, "64M"]);
      const spec = await bench.makeGuest();
      if (spec.root.type !== "disk") throw new Error("a disk");
      const { uid, handle } = await boot({ root: { ...spec.root, path: disk } });
      const command = ["sh", "-c", "yes | dd of=/dev/vda bs=1M count=32 iflag=fullblock conv=fsync"];
      const session = await driver.exec?.run(handle, { command, env: {} }, signal);
      const path = join(bench.host.runDir, "qemu", uid, "qmp.sock");
      const status = async () => {
        const monitor = await QmpClient.connect(path, { clock: systemClock, connectTimeoutMs: 10_000 });
        const answer = await monitor.execute("query-status");
        monitor.close();
        await monitor.closed;
        return isJsonObject(answer) ? answer.status : undefined;
      };
      await until(async () => (await status()) === "io-error", 60_000, "a pause for want of space");
      expect((await driver.inspect(uid))?.state).toBe("running");
      await run("mount", ["-o", "remount,size=96m", directory]);
      expect(await session?.exit).toBe(0);
      await driver.destroy(handle, signal);
    } finally {
      await run("umount", [directory]);
      await rm(directory, { recursive: true });
    }
  });

  it("runs several commands at a time, with live streams, and says when it is too many", async () => {
    const { handle } = await boot();
    const cancel = new AbortController();
    const sessions: ExecSession[] = [];
    for (let index = 0; index < 4; index++) {
      const command = ["sh", "-c", "while read -r line; do echo $line $line; done"];
      const session = await driver.exec?.run(handle, { command, env: {} }, cancel.signal);
      if (session) sessions.push(session);
    }
    for (const [index, session] of sessions.entries()) {
      session.stdin.write(`live${index}\n`);
      const [chunk] = await once(session.stdout, "data");
      expect(String(chunk)).toBe(`live${index} live${index}\n`);
    }
    await expect(driver.exec?.run(handle, { command: ["true"], env: {} }, signal)).rejects.toMatchObject({
      code: "Unavailable",
    });
    cancel.abort();
    expect(await Promise.all(sessions.map((session) => session.exit))).toEqual([137, 137, 137, 137]);
    await until(
      async () => (await ask(handle, "echo free").catch(() => "")) === "free\n",
      10_000,
      "a free port for a command",
    );
  });

  it("gives a shell a terminal: words as they are, keys that interrupt, a size that changes, a status", async () => {
    const { handle } = await boot();
    const words = ["it's", 'a "b"', "$HOME;`x`", "end\n"];
    const tty = { columns: 100, rows: 40 };
    const quoted = await driver.exec?.run(
      handle,
      { command: ["printf", "<%s>", ...words], env: {}, tty },
      signal,
    );
    expect((await text(quoted?.stdout ?? Readable.from([]))).replaceAll("\r\n", "\n")).toBe(
      words.map((word) => `<${word}>`).join(""),
    );

    const shell = await driver.exec?.run(handle, { command: ["sh"], env: { PS1: "ready> " }, tty }, signal);
    if (!shell) throw new Error("no shell");
    let seen = "";
    shell.stdout.on("data", (chunk) => {
      seen += chunk;
    });
    const says = (expected: string | RegExp) =>
      until(() => seen.search(expected) >= 0, 20_000, `${expected} on the terminal, which shows ${seen}`);
    await says("ready> ");
    // One process says that it began and then waits: it has the terminal before it says so.
    shell.stdin.write("sh -c 'echo begin-$((1 + 1)); exec sleep 1000'\n");
    await says("begin-2");
    shell.stdin.write("\x03");
    await says(/begin-2[\s\S]*ready> /);
    shell.stdin.write("echo status-$?\n");
    await says(/status-130/);
    shell.resize(123, 45);
    shell.stdin.write("while [ \"$(stty size)\" != '45 123' ]; do sleep 0.1; done; echo resized-$(tty)\n");
    await says(/resized-\/dev\/pts/);
    shell.stdin.write("exit 7\n");
    expect(await shell.exit).toBe(7);
  });

  it("passes megabytes through a command, byte for byte", async () => {
    const { handle } = await boot();
    const session = await driver.exec?.run(handle, { command: ["cat"], env: {} }, signal);
    const bytes = Buffer.alloc(3_000_000, Buffer.from(systemRandom.bytes(65_521)));
    session?.stdin.end(bytes);
    const chunks: Buffer[] = [];
    for await (const chunk of session?.stdout ?? []) chunks.push(chunk);
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  });
});

describe("the KVM probe", () => {
  it("has its answer within its time and leaves nothing running", async () => {
    const { kernel } = await makeQemuGuest(imageDir);
    const startedAt = systemClock.monotonicMs();
    const proof = await probeKvm({ kernel, clock: systemClock });
    expect(systemClock.monotonicMs() - startedAt).toBeLessThan(12_000);
    expect(proof.reason).not.toBe("");
    const exists = await access("/dev/kvm").then(
      () => true,
      () => false,
    );
    if (!exists) expect(proof.works).toBe(false);
  });

  it("has a guest that boots: proven with emulation in KVM's place", async () => {
    const { kernel } = await makeQemuGuest(imageDir);
    const directory = await mkdtemp("/var/tmp/strata-probe-");
    try {
      const emulator = join(directory, "qemu");
      // The probe's own command line, with another accelerator (and what emulation needs to keep its clock).
      const script = `#!/bin/sh
for word; do
  shift
  case $word in kvm) word=tcg ;; host) word=max ;; console=*) word="$word no_timer_check tsc_early_khz=2000000" ;; esac
  set -- "$@" "$word"
done
exec qemu-system-x86_64 "$@"
`;
      await writeFile(emulator, script);
      await chmod(emulator, 0o755);
      const proof = await probeKvm({ kernel, clock: systemClock, qemu: emulator, timeoutMs: 60_000 });
      expect(proof).toMatchObject({ works: true });
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});

/** A disk whose boot sector prints a line on the serial port and stops. */
function bootSector(line: string): Uint8Array {
  const code = [
    ...[0x31, 0xc0, 0x8e, 0xd8], // xor ax, ax; mov ds, ax
    ...[0xbe, 0x15, 0x7c], // mov si, the text behind this code
    ...[0xba, 0xf8, 0x03], // mov dx, COM1
    ...[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8], // lodsb; test al, al; jz; out dx, al; jmp lodsb
    ...[0xf4, 0xeb, 0xfd], // hlt; jmp hlt
  ];
  const disk = Buffer.alloc(1024 * 1024);
  Buffer.from([...code, ...Buffer.from(`${line}\r\n`)]).copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}
