/**
 * One network with 200 container guests: what one more costs does not grow with how many there are, a change of a
 * security group is in force at once for a hundred of them, and afterwards nothing is left.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { run } from "../src/host/run.ts";
import { hostKind } from "../src/kinds/host.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";
import { securityGroupKind } from "../src/kinds/security-group.ts";
import { guestPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { addressOf, httpGet, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const count = 200;
const watched = 100;
const maxChangeMs = 100;
const maxGrowth = 1.5;

let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  const [host] = (await daemon.client.list(hostKind, {})).items;
  if (!host) throw new Error("the daemon has no host");
  await daemon.client.patch(hostKind, { name: host.metadata.name }, { spec: { cpuOvercommit: 200 } });
  await daemon.client.create(networkKind, {
    project,
    name: "wide",
    spec: { cidr: "10.205.0.0/22", hostRoute: true },
  });
  await daemon.client.create(securityGroupKind, { project, name: "many", spec: {} });
}, 120_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 240_000);

const specOf = (group: string) => ({
  ...{ type: "container" as const, image: "tiny", network: "wide", memoryMib: 16, diskMib: 64 },
  securityGroups: [group],
});

async function start(name: string, group: string): Promise<number> {
  const began = systemClock.monotonicMs();
  const instance = await daemon.client.create(instanceKind, { project, name, spec: specOf(group) });
  const url = `http://${addressOf(instance)}/`;
  await until(
    `${name} answers`,
    async () => (await httpGet(url, 500)).text.split(".", 1)[0]?.trim() === name,
    20_000,
    5,
  );
  return systemClock.monotonicMs() - began;
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

it(`brings up ${count} guests, the last as fast as the first`, async () => {
  const times: number[] = [];
  for (let index = 0; index < count; index++) times.push(await start(`guest-${index}`, "many"));
  const first = mean(times.slice(0, 50));
  const last = mean(times.slice(-50));
  console.log(
    `first 50 guests: ${first.toFixed(0)} ms each, last 50 of ${count}: ${last.toFixed(0)} ms each`,
  );
  expect(last / first).toBeLessThanOrEqual(maxGrowth);
}, 600_000);

/** Sends echo requests to all targets all the time, and says when each has answered. */
const prober = `
import select, socket, struct, sys, time
targets = sys.argv[1:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
def request():
    head = struct.pack("!BBHHH", 8, 0, 0, 4711, 1)
    total = sum(struct.unpack("!4H", head))
    return struct.pack("!BBHHH", 8, 0, ~((total >> 16) + (total & 0xffff)) & 0xffff, 4711, 1)
packet, waiting = request(), set(targets)
print("ready", flush=True)
end = time.monotonic() + 20
while waiting and time.monotonic() < end:
    for target in waiting: s.sendto(packet, (target, 0))
    until = time.monotonic() + 0.005
    while (left := until - time.monotonic()) > 0:
        if not select.select([s], [], [], left)[0]: break
        data, (source, _) = s.recvfrom(2048)
        if data[20] == 0: waiting.discard(source)
print("done" if not waiting else "missing " + " ".join(waiting), time.monotonic() * 1000, flush=True)
`;

/** A stream in which every byte is echoed; prints what it had to send again. */
const streamer = `
import socket, sys, threading, time
server = socket.create_server((sys.argv[1], 7001))
def echo():
    peer, _ = server.accept()
    while data := peer.recv(4096): peer.sendall(data)
threading.Thread(target=echo, daemon=True).start()
print("listening", flush=True)
sys.stdin.read()
`;
const streamClient = `
import select, socket, sys, time
s = socket.create_connection((sys.argv[1], 7001), 10)
print("open", flush=True)
sent = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    s.sendall(b"x")
    got = s.recv(1)
    sent += 1
info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
print("echoed", sent, "retransmitted", int.from_bytes(info[100:104], "little"), flush=True)
`;

function python(instancePid: number, script: string, ...args: string[]) {
  const enter = [`--net=/proc/${instancePid}/ns/net`, "python3", "-c", script, ...args];
  const child = spawn("nsenter", enter, { stdio: ["pipe", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  const closed = once(child, "close");
  return {
    said: (word: string) => until(`a probe says ${word}`, () => text.includes(word), 20_000, 2),
    text: () => text,
    async end() {
      child.stdin.end();
      await closed;
      return text;
    },
  };
}

it(`has a changed group in force for ${watched} guests at once, and allowed streams lose nothing`, async () => {
  await start("prober", "default");
  const watcher = await daemon.client.require(instanceKind, { project, name: "prober" });
  const guests = (await daemon.instances(project)).filter((one) => one.metadata.name.startsWith("guest-"));
  const targets = guests.slice(0, watched).map(addressOf);
  // One stream between two members of the group, allowed by a rule that stays.
  const [server, client] = guests;
  if (!server || !client) throw new Error("there are no guests");
  const stay = { protocol: "tcp" as const, ports: "7001", group: "many" };
  const setRules = (rules: object[]) =>
    daemon.client.patch(securityGroupKind, { project, name: "many" }, { spec: { ingress: rules as never } });
  await setRules([stay]);
  const echo = python(await guestPid(server), streamer, addressOf(server));
  await echo.said("listening");
  const stream = python(await guestPid(client), streamClient, addressOf(server));
  await stream.said("open");
  const times: number[] = [];
  for (let round = 0; round < 20; round++) {
    const probe = python(await guestPid(watcher), prober, ...targets);
    await probe.said("ready");
    // The clock that Python reads as well (CLOCK_MONOTONIC).
    const began = Number(process.hrtime.bigint()) / 1e6;
    await setRules([stay, { protocol: "icmp", group: "default" }]);
    await probe.said("done");
    const at = Number(/done (\S+)/.exec(await probe.end())?.[1]);
    times.push(at - began);
    await setRules([stay]);
  }
  times.sort((a, b) => a - b);
  const median = times[Math.floor(times.length / 2)] ?? 0;
  console.log(
    `a change for ${watched} guests was in force after ${median.toFixed(0)} ms (median), ${times.at(-1)?.toFixed(0)} ms at most`,
  );
  expect(median).toBeLessThanOrEqual(maxChangeMs);
  const said = await stream.end();
  await echo.end();
  const [, echoed, retransmitted] = /echoed (\d+) retransmitted (\d+)/.exec(said) ?? [];
  expect(Number(echoed)).toBeGreaterThan(100);
  expect(Number(retransmitted)).toBe(0);
}, 120_000);

it("has one more rule in force at once, also among a thousand", async () => {
  const watcher = await daemon.client.require(instanceKind, { project, name: "prober" });
  const target = await daemon.client.require(instanceKind, { project, name: "guest-0" });
  const allowed = { protocol: "icmp" as const, group: "default" };
  const setRules = (rules: object[]) =>
    daemon.client.patch(securityGroupKind, { project, name: "many" }, { spec: { ingress: rules as never } });
  const timesAmong = async (count: number) => {
    const others = Array.from({ length: count }, (_, index) => ({
      ...{
        protocol: "tcp" as const,
        ports: String(10_000 + index),
        cidr: `10.99.${index >> 8}.${index & 255}/32`,
      },
    }));
    const times: number[] = [];
    for (let round = 0; round < 20; round++) {
      await setRules(others);
      const probe = python(await guestPid(watcher), prober, addressOf(target));
      await probe.said("ready");
      const began = Number(process.hrtime.bigint()) / 1e6;
      await setRules([...others, allowed]);
      await probe.said("done");
      times.push(Number(/done (\S+)/.exec(await probe.end())?.[1]) - began);
    }
    return times.sort((a, b) => a - b)[10] ?? 0;
  };
  const first = await timesAmong(10);
  const last = await timesAmong(999);
  console.log(`one more rule in force: ${first.toFixed(0)} ms among 10, ${last.toFixed(0)} ms among 999`);
  expect(Math.max(first, last)).toBeLessThanOrEqual(maxChangeMs);
}, 120_000);

it("takes all of them away", async () => {
  const { uid } = (await daemon.client.require(networkKind, { project, name: "wide" })).metadata;
  const began = systemClock.monotonicMs();
  const names = (await daemon.instances(project)).map((one) => one.metadata.name);
  await Promise.all(names.map((name) => daemon.client.delete(instanceKind, { project, name })));
  await until("all are gone", async () => (await daemon.instances(project)).length === 0, 180_000, 50);
  console.log(
    `${names.length} guests deleted in ${((systemClock.monotonicMs() - began) / 1000).toFixed(1)} s`,
  );
  const { stdout } = await run("nsenter", [
    `--net=/run/netns/${daemon.settings.namespace}-${uid}`,
    "ip",
    "-o",
    "link",
  ]);
  expect(stdout.match(/ g-/g) ?? []).toEqual([]);
}, 240_000);
