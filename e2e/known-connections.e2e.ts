/**
 * Connections that pass without being looked up again (src/host/networks/policy/forward-rules.ts), on a real kernel: what
 * makes them known, and that a change of the policy always comes first.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GroupPolicy, RulePolicy } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";
import { FirewallBox, never, type Peer } from "./firewall-box.ts";
import { until } from "./test-daemon.ts";

const web = "gweb000000000000";
const db = "gdb0000000000000";
const egress: RulePolicy[] = [{ protocol: "any", peer: { cidr: "0.0.0.0/0" } }];
const both = (protocol: "tcp" | "udp", ports: readonly number[]): RulePolicy[] =>
  ports.map((port) => ({ protocol, ports: { first: port, last: port }, peer: { group: web } }));
const [kept, lost] = [80, 5000];

let box: FirewallBox;
let a: Peer;
let b: Peer;

/** Web's cards may send to these ports of db's. */
async function allow(ports: readonly number[]): Promise<void> {
  const groups: GroupPolicy[] = [
    { uid: web, ingress: [], egress },
    { uid: db, ingress: [...both("tcp", ports), ...both("udp", ports)], egress },
  ];
  const cards = [box.card(10, [web], true), box.card(11, [db])];
  await box.firewall.apply(box.network.uid, { cards, groups, publishedPorts: [], addresses: [] }, never);
}

/** The number by which connections are known now. */
async function generation(): Promise<number | undefined> {
  const chain = await box.inNetwork("nft", "list", "chain", "inet", "strata", "known");
  const found = /ct mark (0x[\da-f]+) accept/.exec(chain)?.[1];
  return found === undefined ? undefined : Number(found);
}

async function nextGeneration(last?: number): Promise<number> {
  const settled = async () => ![undefined, last].includes(await generation());
  await until("another generation is in force", settled, 10_000);
  return (await generation()) ?? 0;
}

/** Marks of the connections to a port of guest b. */
async function marksOf(port: number): Promise<number[]> {
  const table = await box.inNetwork("cat", "/proc/net/nf_conntrack");
  const ours = table.split("\n").filter((line) => line.includes(` dport=${port} src=${b.address} `));
  return ours.map((line) => Number(/ mark=(\d+)/.exec(line)?.[1]));
}

describe("known connections", () => {
  beforeAll(async () => {
    box = await FirewallBox.make("fwk", 33);
    await box.firewall.ensure(box.network, never);
    await allow([]);
    a = await box.guest(10);
    b = await box.guest(11, [kept, lost]);
  });
  afterAll(async () => await box?.remove());

  it("are those that the groups allow, once nothing has changed for a moment", async () => {
    await allow([kept]);
    const number = await nextGeneration();
    await a.ask("open", { name: "first", address: b.address, port: kept });
    expect(await a.tcp(b.address, lost)).toMatchObject({ ok: false });
    expect(await marksOf(kept)).toEqual([number]);
    expect(await marksOf(lost)).toEqual([]);
    await box.firewall.ensure(box.network, never);
    await allow([kept]);
    expect(await generation()).toBe(number);
  });

  it("are looked up anew after a change: the allowed go on, the others end, and stay so", async () => {
    await allow([kept, lost]);
    let number = await nextGeneration();
    for (let round = 0; round < 5; round++) {
      await a.ask("open", { name: "kept", address: b.address, port: kept });
      // Packets come all the time, so some meet every moment of the change.
      for (let stream = 0; stream < 4; stream++) {
        await a.ask("pump", { name: `lost ${stream}`, address: b.address, port: lost });
      }
      await a.ask("probe", { name: "lost", address: b.address, port: lost });
      await a.ask("heard", { name: "lost", sinceMs: 1 });
      const known = (await marksOf(lost)).filter((mark) => mark === number);
      expect(known.length).toBeGreaterThanOrEqual(5);

      await allow([kept]);
      expect(await a.ask("echo", { name: "kept" })).toMatchObject({ ok: true });
      const before = await a.ask("seen", { name: "lost" });
      number = await nextGeneration(number);
      expect(await a.ask("echo", { name: "kept" })).toMatchObject({ ok: true });
      expect((await a.ask("seen", { name: "lost" })).count).toBe(before.count);
      expect(await marksOf(lost)).not.toContain(number);
      expect(await marksOf(kept)).toContain(number);

      await a.ask("quiet", { name: "lost" });
      await allow([kept, lost]);
      number = await nextGeneration(number);
    }
  });

  it("cannot be made by a guest, whatever it marks", async () => {
    await allow([kept]);
    const number = await nextGeneration();
    for (const mark of [number, 0x8000_0000]) {
      const rules = `table inet forged {
        chain out { type filter hook output priority 0; meta mark set ${mark}; ct mark set ${mark}; }
      }`;
      await run("nsenter", ["--net=/run/netns/fwk-g10", "nft", "-f", "-"], { input: rules });
      expect(await a.tcp(b.address, lost)).toMatchObject({ ok: false });
      expect(await a.ask("udp", { address: b.address, port: lost })).toMatchObject({ ok: false });
      expect(await a.reaches(b.address, kept)).toMatchObject({ ok: true });
      await box.inGuest(10, "nft", "delete", "table", "inet", "forged");
    }
    expect(await marksOf(lost)).not.toContain(number);
  });

  it("are none while the rules are mended and after a change of process, and then again", async () => {
    await allow([kept, lost]);
    let number = await nextGeneration();
    await a.ask("open", { name: "lost", address: b.address, port: lost });
    box.restart();
    await box.firewall.ensure(box.network, never);
    expect(await generation()).toBe(number); // the rules of the process before stay until it says what is wanted
    await allow([kept]);
    expect(await a.ask("echo", { name: "lost" })).toMatchObject({ ok: false });
    number = await nextGeneration(number);
    expect(await a.ask("echo", { name: "lost" })).toMatchObject({ ok: false });
    await box.inNetwork("nft", "flush", "chain", "inet", "strata", "known");
    expect(await nextGeneration(number)).toBeGreaterThan(number);
  });
});
