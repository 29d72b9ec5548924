/** Packet rules on a real kernel: guests are namespaces, and every claim is a packet that arrives or does not. */
import { createServer } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { formatRange, parseIp, parseRange } from "../src/core/ip-range.ts";
import type { GroupPolicy, NetworkPolicy, RulePolicy } from "../src/host/networks/networks.ts";
import { NftSession } from "../src/host/networks/policy/nft-session.ts";
import { run } from "../src/host/run.ts";
import { evaluateRules } from "../src/kinds/reachability/rules.ts";
import { FirewallBox, floating, hostLanAddress, never, outsideAddress, type Peer } from "./firewall-box.ts";

const web = "gweb000000000000";
const db = "gdb0000000000000";
const anyEgress: RulePolicy[] = [
  { protocol: "any", peer: { cidr: "0.0.0.0/0" } },
  { protocol: "any", peer: { cidr: "::/0" } },
];
const group = (uid: string, ingress: RulePolicy[], egress = anyEgress): GroupPolicy => ({
  uid,
  ingress,
  egress,
});
const tcp = (port: number, peer: RulePolicy["peer"]): RulePolicy => ({
  protocol: "tcp",
  ports: { first: port, last: port },
  peer,
});

let box: FirewallBox;
let a: Peer;
let b: Peer;
let c: Peer;
let outside: Peer;

const policy = (part: Partial<NetworkPolicy> = {}): NetworkPolicy => ({
  cards: [box.card(10, [web], true), box.card(11, [db]), box.card(12, [])],
  groups: [group(web, []), group(db, [])],
  publishedPorts: [],
  addresses: [],
  ...part,
});
const apply = (part: Partial<NetworkPolicy> = {}) => box.firewall.apply(box.network.uid, policy(part), never);

function rangeAround(address: string, length: number): string {
  const range = parseRange(`${address}/${length}`)?.range;
  if (!range) throw new Error(address);
  return formatRange(range);
}

describe("packet rules", () => {
  beforeAll(async () => {
    box = await FirewallBox.make("fwt", 31);
    await box.firewall.ensure(box.network, never);
    await apply();
    a = await box.guest(10, [80, 5000]);
    b = await box.guest(11, [80, 5000]);
    c = await box.guest(12, [80]);
    outside = await box.peer("fwt-out", outsideAddress, "", [80]);
    // The outside knows its way back, so that what is dropped here was dropped by a rule.
    for (const range of ["100.64.0.0/11", "10.231.0.0/16"]) {
      await run("ip", ["-n", "fwt-out", "route", "replace", range, "via", hostLanAddress]);
    }
  });
  afterAll(async () => await box?.remove());

  it("keep guests apart unless a group allows", async () => {
    await apply();
    expect(await a.tcp(b.address, 80)).toMatchObject({ ok: false });
    await apply({ groups: [group(web, []), group(db, [tcp(80, { group: web })])] });
    expect(await a.reaches(b.address, 80)).toMatchObject({ ok: true, from: a.address });
    expect(await a.reaches(b.address6, 80)).toMatchObject({ ok: true, from: a.address6 });
    expect(await a.tcp(b.address, 5000)).toMatchObject({ ok: false });
    expect(await b.tcp(a.address, 80)).toMatchObject({ ok: false });
    expect(await c.tcp(b.address, 80)).toMatchObject({ ok: false });
    expect(await c.tcp(outsideAddress, 80)).toMatchObject({ ok: false });
  });

  it("follow ranges, protocols and overlapping rules of every width", async () => {
    const ingress: RulePolicy[] = [
      { protocol: "tcp", ports: { first: 4000, last: 6000 }, peer: { cidr: "0.0.0.0/0" } },
      { protocol: "tcp", ports: { first: 4500, last: 5500 }, peer: { cidr: `${a.address}/32` } },
      { protocol: "tcp", ports: { first: 1, last: 65_535 }, peer: { cidr: "10.0.0.0/8" } },
      { protocol: "udp", peer: { cidr: "10.231.0.0/16" } },
      { protocol: "icmp", peer: { cidr: `${c.address}/32` } },
      { protocol: "icmp", peer: { cidr: "10.0.0.0/9" } },
    ];
    await apply({ groups: [group(web, []), group(db, ingress)] });
    expect(await a.reaches(b.address, 5000)).toMatchObject({ ok: true });
    expect(await a.reaches(b.address, 80)).toMatchObject({ ok: true });
    expect(await a.ask("udp", { address: b.address, port: 5000 })).toMatchObject({ ok: true });
    expect(await a.ask("udp", { address: b.address6, port: 5000 })).toMatchObject({ ok: false });
    expect((await box.inGuest(10, "busybox", "ping", "-c", "1", "-W", "1", b.address)).status).toBe(1);
    await apply({
      groups: [
        group(web, []),
        group(db, [...ingress, { protocol: "icmp", peer: { cidr: "10.231.0.0/16" } }]),
      ],
    });
    expect((await box.inGuest(10, "busybox", "ping", "-c", "1", "-W", "1", b.address)).status).toBe(0);
    expect((await box.inGuest(10, "busybox", "ping", "-c", "1", "-W", "1", box.address(1))).status).toBe(0);
  });

  it("come to the verdicts of the rules read one by one, whatever the rules and the change", async () => {
    const probes = [80, 5000].flatMap((port) =>
      (["tcp", "udp"] as const).flatMap((protocol) =>
        [a.address, a.address6].map((from) => ({ protocol, port, from })),
      ),
    );
    const check = async (ingress: RulePolicy[]) => {
      await apply({ groups: [group(web, []), group(db, ingress)] });
      const verdicts = probes.map(async ({ protocol, port, from }) => {
        const address = from === a.address ? b.address : b.address6;
        const { ok } = await a.ask(protocol, { address, port, timeoutMs: 100 });
        const peer = parseIp(from);
        if (!peer) throw new Error(from);
        const packet = { protocol, port, peer, peerGroups: new Set([web]) };
        return { protocol, port, from, passes: ok, right: evaluateRules(ingress, packet) !== undefined };
      });
      for (const verdict of await Promise.all(verdicts))
        expect(verdict.passes, JSON.stringify({ verdict, ingress })).toBe(verdict.right);
    };
    const cidr = fc.oneof(
      fc.integer({ min: 0, max: 32 }).map((length) => rangeAround(a.address, length)),
      fc.integer({ min: 0, max: 128 }).map((length) => rangeAround(a.address6, length)),
      fc.integer({ min: 20, max: 32 }).map((length) => rangeAround(b.address, length)),
    );
    const peer = fc.oneof(
      cidr.map((cidr) => ({ cidr })),
      fc.constantFrom(web, db).map((group) => ({ group })),
    );
    const edge = fc.constantFrom(1, 79, 80, 81, 4_999, 5_000, 5_001, 65_535);
    const ports = fc.tuple(edge, edge).map(([x, y]) => ({ first: Math.min(x, y), last: Math.max(x, y) }));
    const rule: fc.Arbitrary<RulePolicy> = fc.oneof(
      {
        weight: 1,
        arbitrary: fc.record({ protocol: fc.constantFrom("any" as const, "icmp" as const), peer }),
      },
      {
        weight: 8,
        arbitrary: fc.record({ protocol: fc.constantFrom("tcp" as const, "udp" as const), ports, peer }),
      },
    );
    await fc.assert(fc.asyncProperty(fc.array(rule, { maxLength: 12 }), check), {
      numRuns: 60,
      endOnFailure: true,
    });
  });

  it("end a connection when its rule is taken back, and let others be", async () => {
    const both = group(db, [tcp(80, { group: web }), tcp(5000, { cidr: "10.231.0.0/16" })]);
    await apply({ groups: [group(web, []), both] });
    await a.ask("open", { name: "kept", address: b.address, port: 80 });
    await a.ask("open", { name: "lost", address: b.address, port: 5000 });
    expect(await a.ask("echo", { name: "lost" })).toMatchObject({ ok: true });
    await apply({ groups: [group(web, []), group(db, [tcp(80, { group: web })])] });
    expect(await a.ask("echo", { name: "kept" })).toMatchObject({ ok: true });
    expect(await a.ask("echo", { name: "lost" })).toMatchObject({ ok: false });
  });

  it("let guests out with the uplink's address, and nobody in", async () => {
    await apply();
    expect(await a.tcp(outsideAddress, 80)).toMatchObject({
      ok: true,
      from: box.network.uplink.innerAddress,
    });
    expect(await outside.tcp(a.address, 80)).toMatchObject({ ok: false });
  });

  it("let the host in", async () => {
    await apply();
    const { status } = await run("busybox", ["nc", "-w", "1", c.address, "80"], { expected: [0, 1] });
    expect(status).toBe(0);
  });

  it("publish a port: from outside, from the host, by loopback; groups apply, and moving it ends what was", async () => {
    const open = [
      group(web, [tcp(80, { cidr: `${outsideAddress}/32` })]),
      group(db, [tcp(80, { cidr: "198.18.0.0/15" })]),
    ];
    const published = { protocol: "tcp" as const, port: 18_080, ipAddress: a.address, targetPort: 80 };
    await apply({ publishedPorts: [published], groups: open });
    expect(await outside.reaches(hostLanAddress, 18_080)).toMatchObject({ ok: true, from: outsideAddress });
    const fromHost = async (address: string) =>
      (await run("busybox", ["nc", "-w", "1", address, "18080"], { expected: [0, 1], input: "" })).status;
    expect(await fromHost("127.0.0.1")).toBe(0);
    expect(await fromHost(hostLanAddress)).toBe(1); // a client like any other
    await outside.ask("open", { name: "published", address: hostLanAddress, port: 18_080 });
    expect(await outside.ask("echo", { name: "published" })).toMatchObject({ ok: true });
    await apply({ publishedPorts: [{ ...published, ipAddress: b.address }], groups: open });
    expect(await outside.ask("echo", { name: "published" })).toMatchObject({ ok: false });
    expect(await outside.reaches(hostLanAddress, 18_080)).toMatchObject({ ok: true });
    expect(await a.reaches(hostLanAddress, 18_080)).toMatchObject({ ok: true, from: hostLanAddress });
    await apply({ groups: open });
    expect(await outside.tcp(hostLanAddress, 18_080)).toMatchObject({ ok: false });
  });

  it("give a guest an address of the outside's range, and move it", async () => {
    const open = [group(web, [tcp(80, { cidr: "0.0.0.0/0" })]), group(db, [tcp(80, { cidr: "0.0.0.0/0" })])];
    await apply({ addresses: [{ address: floating, ipAddress: a.address }], groups: open });
    // The host's kernel waits up to 0.8 s before it answers a neighbour for somebody else.
    const first = await outside.ask("tcp", { address: floating, port: 80, timeoutMs: 3_000 });
    expect(first).toMatchObject({ ok: true, from: outsideAddress });
    expect(await outside.tcp(floating, 5000)).toMatchObject({ ok: false });
    expect(await a.reaches(outsideAddress, 80)).toMatchObject({ ok: true, from: floating });
    expect(await b.reaches(floating, 80)).toMatchObject({ ok: true, from: b.address });
    await outside.ask("open", { name: "floating", address: floating, port: 80 });
    await apply({ addresses: [{ address: floating, ipAddress: b.address }], groups: open });
    expect(await outside.ask("echo", { name: "floating" })).toMatchObject({ ok: false });
    expect(await outside.reaches(floating, 80)).toMatchObject({ ok: true });
    expect(await b.reaches(outsideAddress, 80)).toMatchObject({ ok: true, from: floating });
    expect(await a.tcp(outsideAddress, 80)).toMatchObject({ from: box.network.uplink.innerAddress });
    await apply({ groups: open });
    expect(await outside.tcp(floating, 80)).toMatchObject({ ok: false });
    expect((await run("ip", ["route", "show", "proto", "84"])).stdout).not.toContain(floating);
    expect((await run("ip", ["neigh", "show", "proxy"])).stdout).not.toContain(floating);
  });

  it("let nobody speak for another", async () => {
    await apply({ groups: [group(web, []), group(db, [])] });
    const ping = async (...args: string[]) =>
      (await box.inGuest(10, "busybox", "ping", "-c", "1", "-W", "1", ...args)).status;
    const inA = (...args: string[]) => run("ip", ["-n", "fwt-g10", ...args]);
    expect(await ping(box.address(1))).toBe(0);
    expect(await ping("-6", box.address6(1))).toBe(0);
    await inA("address", "add", `${b.address}/32`, "dev", "eth0");
    await inA("address", "add", `${b.address6}/128`, "dev", "eth0", "nodad");
    expect(await ping("-I", b.address, box.address(1))).toBe(1);
    expect(await ping("-6", "-I", b.address6, box.address6(1))).toBe(1);
    await inA("address", "del", `${b.address}/32`, "dev", "eth0");
    await inA("address", "del", `${b.address6}/128`, "dev", "eth0");
    await inA("link", "set", "dev", "eth0", "address", "02:31:00:00:00:0b");
    expect(await ping(box.address(1))).toBe(1);
    await inA("link", "set", "dev", "eth0", "address", box.card(10, []).macAddress);
    expect(await ping(box.address(1))).toBe(0);
  });

  it("lead to the metadata service whom they shall, and its answers no further than the guest", async () => {
    const seen: (string | undefined)[] = [];
    const service = createServer((socket) => {
      seen.push(socket.remoteAddress);
      socket.end("metadata\n");
    });
    await new Promise<void>((resolve) => service.listen(8775, box.network.uplink.hostAddress, resolve));
    try {
      await apply({ groups: [] });
      const count =
        "add table ip t; add chain ip t i { type filter hook input priority 0; }; add rule ip t i tcp sport 80 ip ttl != 1 counter drop";
      await box.inGuest(10, "nft", count);
      expect(await a.reaches("169.254.169.254", 80)).toMatchObject({ ok: true, from: "metadata" });
      await box.inGuest(10, "nft", "delete table ip t");
      expect(seen).toEqual([a.address]);
      expect(await b.tcp("169.254.169.254", 80)).toMatchObject({ ok: false, why: "ECONNREFUSED" });
      expect(await b.tcp(box.network.uplink.hostAddress, 8775)).toMatchObject({ ok: false });
    } finally {
      service.close();
    }
  });

  it("are mended when somebody flushes them, and connections survive", async () => {
    await apply({ groups: [group(web, []), group(db, [tcp(80, { group: web })])] });
    await box.firewall.ensure(box.network, never);
    await a.ask("open", { name: "survivor", address: b.address, port: 80 });
    const stop = new AbortController();
    const events = box.firewall.events(stop.signal)[Symbol.asyncIterator]();
    const event = events.next();
    await box.inNetwork("nft", "flush", "ruleset");
    expect(await event).toMatchObject({ value: { uid: box.network.uid } });
    stop.abort();
    expect(await a.ask("echo", { name: "survivor" })).toMatchObject({ ok: true });
    expect(await a.tcp(b.address, 5000)).toMatchObject({ ok: false });
    expect(await a.reaches(b.address, 80)).toMatchObject({ ok: true });
    expect(await box.firewall.ensure(box.network, never)).toEqual({ repaired: true });
    expect(await box.firewall.ensure(box.network, never)).toEqual({ repaired: false });
  });

  it("stay in force while the process is exchanged, and follow the next one", async () => {
    const groups = [group(web, []), group(db, [tcp(80, { group: web })])];
    await apply({ groups });
    await a.ask("open", { name: "patient", address: b.address, port: 80 });
    box.restart();
    await expect(apply({ groups })).rejects.toMatchObject({ code: "NotFound" });
    expect(await box.firewall.ensure(box.network, never)).toEqual({ repaired: true }); // the host's table
    expect(await a.reaches(b.address, 80)).toMatchObject({ ok: true });
    await apply({ groups });
    expect(await a.ask("echo", { name: "patient" })).toMatchObject({ ok: true });
    await apply({ groups: [group(web, []), group(db, [tcp(5000, { group: web })])] });
    expect(await a.reaches(b.address, 5000)).toMatchObject({ ok: true });
    expect(await a.ask("echo", { name: "patient" })).toMatchObject({ ok: false });
  });

  it("keep what is published while the process is exchanged, and when somebody deletes the host's table", async () => {
    const groups = [group(web, [tcp(80, { cidr: "198.18.0.0/15" })])];
    const publishedPorts = [{ protocol: "tcp" as const, port: 18_081, ipAddress: a.address, targetPort: 80 }];
    const addresses = [{ address: floating, ipAddress: a.address }];
    await apply({ groups, publishedPorts, addresses });
    box.restart();
    await box.firewall.ensure(box.network, never);
    const reaches = async () => {
      expect(await outside.reaches(hostLanAddress, 18_081)).toMatchObject({ ok: true, from: outsideAddress });
      const answer = await outside.ask("tcp", { address: floating, port: 80, timeoutMs: 3_000 });
      expect(answer).toMatchObject({ ok: true, from: outsideAddress });
    };
    await reaches();
    const stop = new AbortController();
    const event = box.firewall.events(stop.signal)[Symbol.asyncIterator]().next();
    await run("nft", ["delete", "table", "inet", "fwt-published"]);
    expect(await event).toMatchObject({ value: { uid: box.network.uid } });
    stop.abort();
    expect(await box.firewall.ensure(box.network, never)).toEqual({ repaired: true });
    await reaches();
    await apply();
    expect(await outside.tcp(hostLanAddress, 18_081)).toMatchObject({ ok: false });
    expect(await outside.tcp(floating, 80)).toMatchObject({ ok: false });
  });

  it("are refused as a whole, with the kernel's words, and the next change works", async () => {
    const session = new NftSession({
      owner: "a test",
      netns: box.network.netns,
      file: join(box.directory, "test.nft"),
      clock: systemClock,
      idleMs: 60_000,
    });
    try {
      await session.transact("add table ip first\n");
      const wrong = "add table ip second\nadd element ip first nothing { 1 }\n";
      await expect(session.transact(wrong)).rejects.toMatchObject({
        code: "Internal",
        detail: expect.stringContaining("nothing"),
      });
      expect(await session.succeeds("list table ip first")).toBe(true);
      expect(await session.succeeds("list table ip second")).toBe(false);
      session.kill();
      await session.transact("delete table ip first\n");
      await session.transact("add table ip third\ndelete table ip third\n");
    } finally {
      await session.end();
    }
  });
});
