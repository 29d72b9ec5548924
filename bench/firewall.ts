/**
 * How fast packet rules change, and what established connections notice of it, on the real kernel. Two guests are
 * namespaces that probe each other every millisecond; the other cards are there in the rules only. Needs root and nftables.
 *
 *   node bench/firewall.ts [--changes 100] [--cards 200] [--rules 1000]
 */
import { parseArgs } from "node:util";
import { FirewallBox, never, type Peer } from "../e2e/firewall-box.ts";
import { systemClock } from "../src/core/clock.ts";
import type { CardPolicy, GroupPolicy, RulePolicy } from "../src/host/networks/networks.ts";
import { median, percentile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    changes: { type: "string", default: "100" },
    cards: { type: "string", default: "200" },
    rules: { type: "string", default: "1000" },
  },
});
const changes = Number(values.changes);
const cardCount = Number(values.cards);
const ruleCount = Number(values.rules);
const group = "gbench0000000000";
const kept: RulePolicy = { protocol: "tcp", ports: { first: 80, last: 80 }, peer: { group } };
const probed: RulePolicy = { protocol: "udp", ports: { first: 5000, last: 5000 }, peer: { group } };

const box = await FirewallBox.make("fwb", 57);
const cards = (count: number): CardPolicy[] =>
  Array.from({ length: count }, (_, index) => box.card(10 + index, [group]));
const groups = (ingress: RulePolicy[]): GroupPolicy[] => [
  { uid: group, ingress, egress: [{ protocol: "any", peer: { cidr: "0.0.0.0/0" } }] },
];

async function apply(cards: CardPolicy[], ingress: RulePolicy[]): Promise<number> {
  const began = systemClock.monotonicMs();
  const policy = { cards, groups: groups(ingress), publishedPorts: [], addresses: [] };
  await box.firewall.apply(box.network.uid, policy, never);
  return systemClock.monotonicMs() - began;
}

function row(what: string, times: readonly number[]): void {
  const figures = [median(times), percentile(times, 0.95), Math.max(...times)].map((time) => time.toFixed(1));
  console.log(`${what.padEnd(64)} ${figures.map((figure) => figure.padStart(8)).join("")}`);
}

function growth(what: string, times: readonly number[], width: number): void {
  const [first, last] = [times.slice(0, width), times.slice(-width)];
  row(`${what}, the first ${width}`, first);
  row(`${what}, the last ${width}`, last);
  console.log(
    `${"  ratio of the medians".padEnd(64)} ${(median(last) / median(first)).toFixed(2).padStart(8)}`,
  );
}

async function retransmissions(host: number): Promise<number> {
  const { stdout } = await box.inGuest(host, "cat", "/proc/net/snmp");
  const [names, numbers] = stdout
    .split("\n")
    .filter((line) => line.startsWith("Tcp:"))
    .map((line) => line.split(" "));
  return Number(numbers?.[names?.indexOf("RetransSegs") ?? -1]);
}

/** From the request to the first answer that a new rule lets through, and to the last one after it was taken back. */
async function measureChanges(a: Peer, b: Peer): Promise<void> {
  const all = cards(100);
  await apply(all, [kept]);
  await a.ask("pump", { name: "kept", address: b.address, port: 80 });
  await a.ask("probe", { name: "probed", address: b.address, port: 5000 });
  const before = await retransmissions(10);
  const began = systemClock.monotonicMs();
  const [allowed, refused]: [number[], number[]] = [[], []];
  for (let change = 0; change < changes; change += 2) {
    const askedAt = systemClock.now();
    await apply(all, [kept, probed]);
    const heard = await a.ask("heard", { name: "probed", sinceMs: askedAt });
    allowed.push((heard.atMs ?? Number.NaN) - askedAt);
    const takenBackAt = systemClock.now();
    await apply(all, [kept]);
    await systemClock.sleep(60);
    const last = await a.ask("seen", { name: "probed" });
    refused.push(Math.max(0, (last.atMs ?? Number.NaN) - takenBackAt));
  }
  row("rule for 100 cards: until the first packet passes", allowed);
  row("rule for 100 cards taken back: until the last packet passed", refused);
  await report(a, "stream kept through all changes", before);
  await a.ask("pump", { name: "kept", address: b.address, port: 80 });
  const quietBefore = await retransmissions(10);
  await systemClock.sleep(systemClock.monotonicMs() - began);
  await report(a, "the same time without changes, for comparison", quietBefore);
}

/** A segment is sent again when it was lost, and also when its acknowledgement is late on a busy machine. */
async function report(a: Peer, what: string, before: number): Promise<void> {
  const { count, longestMs } = await a.ask("pumped", { name: "kept" });
  const again = (await retransmissions(10)) - before;
  console.log(
    `${what}: ${count} kilobytes, the slowest in ${longestMs?.toFixed(1)} ms, ${again} segments sent again`,
  );
}

async function measureGrowth(): Promise<void> {
  const rules: RulePolicy[] = [];
  const ruleTimes: number[] = [];
  for (let index = 0; index < ruleCount; index++) {
    const port = 1_000 + index * 2;
    rules.push({
      protocol: "tcp",
      ports: { first: port, last: port },
      peer: { cidr: `10.${index & 127}.0.0/16` },
    });
    ruleTimes.push(await apply(cards(100), [kept, ...rules]));
  }
  growth("one more rule", ruleTimes, 50);
  await apply([], []);
  const cardTimes: number[] = [];
  for (let count = 1; count <= cardCount; count++) cardTimes.push(await apply(cards(count), [kept, probed]));
  growth("one more card", cardTimes, 20);
}

try {
  await box.firewall.ensure(box.network, never);
  await apply(cards(100), [kept]);
  const b = await box.guest(11, [80, 5000]);
  const a = await box.guest(10);
  console.log(`${"milliseconds".padEnd(64)}   median     95 %     max`);
  await measureChanges(a, b);
  await measureGrowth();
} finally {
  await box.remove();
}
