import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { newUid } from "../src/core/ids.ts";
import { silentLogger } from "../src/core/logger.ts";
import { randomInt, seededRandom, systemRandom } from "../src/core/random.ts";
import type { Cgroups } from "../src/host/cgroups.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { createNetworks, type KernelNetworks } from "../src/host/networks/kernel-networks.ts";
import { hostTable, networkNames, uplinkPrefix } from "../src/host/networks/network-plan.ts";
import type { CardPolicy, NetworkAttachment, NetworkRequest } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";
import { FramesIn } from "./frames.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { NetnsGuest, pings, pingsFrom } from "./netns-guest.ts";
import { cardOf, placeOf, policyOf, requestOf } from "./networks-scene.ts";

const never = new AbortController().signal;
const namespace = `n7${newUid(systemRandom).slice(0, 6)}`;

let runDir: string;
let cgroups: Cgroups;
let networks: KernelNetworks;
let before: Snapshot;
const guests: NetnsGuest[] = [];
const cards = new Map<string, CardPolicy[]>();
/** Of all networks that guests joined. */
const hostAddresses = new Set<string>();

type Guest = NetnsGuest & { card: CardPolicy; ip: string; ipv6: string };

function open(options: { forgetAfterMs?: number } = {}): KernelNetworks {
  return createNetworks({
    config: { namespace, runDir },
    cgroups,
    clock: systemClock,
    logger: silentLogger,
    hostRecheckMs: 0,
    ...options,
  });
}

/** All of a network's cards are allowed everything. */
async function apply(wanted: NetworkRequest, all: CardPolicy[]): Promise<void> {
  cards.set(wanted.uid, all);
  await networks.apply(wanted.uid, policyOf(all), never);
}

async function plug(network: NetworkAttachment, card: CardPolicy): Promise<Guest> {
  const guest = await NetnsGuest.join(card.port, placeOf(network, card.subnet), card.macAddress, runDir);
  guests.push(guest);
  hostAddresses.add(network.hostAddress);
  return Object.assign(guest, { card, ip: card.ipAddress, ipv6: card.ipv6Address ?? "" });
}

/** A guest with a card whose addresses end in `last`. */
async function joinGuest(
  wanted: NetworkRequest,
  network: NetworkAttachment,
  hostname: string,
  last: number,
  options: { subnet?: string } = {},
): Promise<Guest> {
  const card = cardOf(wanted, hostname, last, options);
  await apply(wanted, [...(cards.get(wanted.uid) ?? []), card]);
  return await plug(network, card);
}

/** A guest with its addresses in force. */
async function startGuest(...args: Parameters<typeof joinGuest>): Promise<Guest> {
  const guest = await joinGuest(...args);
  expect((await guest.dhcp())?.ip).toBe(guest.ip);
  expect(await guest.dhcp6()).toBe(guest.ipv6);
  return guest;
}

/** What of ours is on the host now and was not before; other tests and daemons may run beside. */
async function leaks(): Promise<string[]> {
  const marks = [namespace, uplinkPrefix(namespace), "10.213.", runDir];
  const found = await findLeaks(before, marks);
  return found.filter((line) => marks.some((mark) => line.includes(mark)));
}

/** Of our networks' addresses those that the host still has rules for. */
async function hostRules(): Promise<string[]> {
  const { stdout } = await run("ip", ["rule", "show", "pref", "6464"]);
  return [...hostAddresses].filter((address) => stdout.includes(`from ${address} `));
}

async function waitFor(what: string, condition: () => Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = systemClock.monotonicMs() + timeoutMs;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`waited in vain: ${what}`);
    await systemClock.sleep(20);
  }
}

const names = (wanted: NetworkRequest) => networkNames({ namespace, runDir }, wanted.uid);

beforeAll(async () => {
  before = await takeSnapshot();
  runDir = await mkdtemp(join(tmpdir(), "strata-networks-"));
  cgroups = await openCgroups({ clock: systemClock });
  networks = open();
});

afterEach(async () => {
  for (const guest of guests.splice(0)) await guest.leave();
  for (const uid of await networks.list()) await networks.remove(uid, never);
  cards.clear();
});

afterAll(async () => {
  await networks.removeEverything(never);
  networks.close();
  await cgroups.remove(namespace);
  await rm(runDir, { recursive: true, force: true });
  expect(await leaks()).toEqual([]);
  expect(await hostRules()).toEqual([]);
});

describe("networks on the kernel", () => {
  it("give guests of all subnets addresses, names, ways to one another and out", async () => {
    const wanted = requestOf(213, { mtu: 1300 });
    const network = await networks.ensure(wanted, never);
    const web = await joinGuest(wanted, network, "web", 10);
    expect(await web.dhcp()).toEqual({
      ip: web.ip,
      router: "10.213.0.1",
      dns: "10.213.0.1",
      domain: "demo.internal",
      search: "demo.internal",
      mtu: "1300",
    });
    expect(await web.dhcp6()).toBe(web.ipv6);
    const near = await startGuest(wanted, network, "near", 11);
    const far = await startGuest(wanted, network, "far", 10, { subnet: "back" });
    const fqdn = "far.demo.internal";
    expect(await web.resolve("far", "10.213.0.1")).toBe(far.ip);
    expect(await web.resolve(fqdn, "10.213.0.1")).toBe(far.ip);
    expect(await web.resolve(fqdn, "fd00:213::1", "aaaa")).toBe(far.ipv6);
    expect(await web.resolve(far.ip, "10.213.0.1", "ptr")).toBe(fqdn);
    expect(await web.resolve(far.ipv6, "10.213.0.1", "ptr")).toBe(fqdn);
    expect(await web.resolve("nobody.demo.internal", "10.213.0.1")).toBeUndefined();
    for (const other of [near, far]) {
      expect(await web.pings(other.ip)).toBe(true);
      expect(await web.pings(other.ipv6)).toBe(true);
      expect(await other.pings(web.ip, "-s", "1400")).toBe(true); // in two fragments
    }
    expect(await web.pings("10.213.0.1")).toBe(true);
    expect(await web.pings(network.hostAddress)).toBe(true);
    expect(await pingsFrom(network.hostAddress, web.ip)).toBe(true);
    expect(await pingsFrom(network.hostAddress, far.ip)).toBe(true);
    expect(await web.run("ip", "-6", "route")).not.toContain("fd00:213::/64"); // neighbours by the gateway only
  });

  it("have a route in the host's table only when asked, and only then mind what it routes", async () => {
    const wanted = requestOf(213, { hostRoute: true });
    const network = await networks.ensure(wanted, never);
    const guest = await startGuest(wanted, network, "guest", 10);
    expect(await pings(guest.ip)).toBe(true);
    expect(await pings(guest.ipv6)).toBe(true);
    const wider = requestOf(213, { cidr: "10.212.0.0/15", hostRoute: true });
    await expect(networks.ensure(wider, never)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining(names(wanted).uplink),
    });
    expect(await networks.list()).toEqual([wanted.uid]);
    const beside = requestOf(213);
    const other = await networks.ensure(beside, never);
    const twin = await startGuest(beside, other, "twin", 77);
    expect(await pings(twin.ip)).toBe(false);
    expect(await pingsFrom(other.hostAddress, twin.ip)).toBe(true);
  });

  it("with the same addresses do not meet", async () => {
    const [a, b] = [requestOf(213), requestOf(213)];
    const networkA = await networks.ensure(a, never);
    const networkB = await networks.ensure(b, never);
    expect(networkA.hostAddress).not.toBe(networkB.hostAddress);
    const guestA = await startGuest(a, networkA, "guest", 10);
    const guestB = await startGuest(b, networkB, "guest", 10);
    const onlyA = await startGuest(a, networkA, "only", 20);
    const seen = await FramesIn.open(networkB.netns, [guestB.name]);
    expect(await guestA.pings(onlyA.ip)).toBe(true);
    expect(await guestB.pings(onlyA.ip)).toBe(false);
    expect(await guestB.pings(onlyA.ipv6)).toBe(false);
    expect(await pingsFrom(networkA.hostAddress, onlyA.ip)).toBe(true);
    expect(await pingsFrom(networkB.hostAddress, onlyA.ip)).toBe(false);
    // With the other network's ends as targets, and with addresses of the host as sources.
    expect(await guestA.pings(networkB.hostAddress.replace(/\d+$/, (end) => String(Number(end) + 1)))).toBe(
      false,
    );
    for (const source of ["10.213.0.77", networkB.hostAddress]) {
      await guestA.run("ip", "address", "add", `${source}/32`, "dev", "eth0");
      expect(await guestA.pings(guestB.ip.replace(/\d+$/, "20"), "-I", source)).toBe(false);
    }
    const frames = await seen.close();
    const macs = new Set(frames.map(({ source }) => source));
    expect(macs).not.toContain(guestA.macAddress);
    expect(macs).not.toContain(onlyA.macAddress);
  });

  it("give nothing to hardware addresses without a card", async () => {
    const wanted = requestOf(213);
    const network = await networks.ensure(wanted, never);
    await apply(wanted, []);
    const stranger = await NetnsGuest.join(
      `${namespace}x`,
      placeOf(network, "front"),
      "02:13:00:00:00:99",
      runDir,
    );
    guests.push(stranger);
    expect(await stranger.dhcp(1)).toBeUndefined();
    expect(await stranger.dhcp6(1)).toBeUndefined();
  });

  it("hand addresses on to the next guest, and forget the name of the one before", async () => {
    networks.close();
    networks = open({ forgetAfterMs: 600_000 }); // the next guest does not wait for that
    const wanted = requestOf(213);
    const network = await networks.ensure(wanted, never);
    const old = await startGuest(wanted, network, "old", 10);
    await apply(wanted, []);
    await old.leave();
    const next = await joinGuest(wanted, network, "next", 10);
    expect((await next.dhcp(2))?.ip).toBe(old.ip);
    expect(await next.dhcp6()).toBe(old.ipv6);
    expect(await next.resolve("next", "10.213.0.1")).toBe(next.ip);
    await waitFor(
      "the old name is forgotten",
      async () => (await next.resolve("old", "10.213.0.1")) === undefined,
    );
    expect(await pingsFrom(network.hostAddress, next.ip)).toBe(true); // by its own hardware address
  });

  it("take up a changed card, also when a daemon before knew the old one", async () => {
    const wanted = requestOf(213);
    const network = await networks.ensure(wanted, never);
    const guest = await startGuest(wanted, network, "before", 10);
    networks.close();
    networks = open();
    await networks.ensure(wanted, never);
    await apply(wanted, [{ ...guest.card, hostname: "after", ipAddress: "10.213.0.20" }]);
    await guest.run("ip", "address", "flush", "dev", "eth0", "scope", "global"); // the old one may not be used
    expect((await guest.dhcp())?.ip).toBe("10.213.0.20");
    await waitFor("the new name", async () => (await guest.resolve("after", "10.213.0.1")) === "10.213.0.20");
    expect(await guest.resolve("before", "10.213.0.1")).toBeUndefined();
    expect(await pingsFrom(network.hostAddress, "10.213.0.20")).toBe(true);
    const neighbours = await run("ip", ["-n", names(wanted).netns, "neigh", "show", "nud", "permanent"]);
    expect(neighbours.stdout).not.toContain("10.213.0.10 ");
  });

  it("refuse a card in a subnet that they do not have", async () => {
    const wanted = requestOf(213);
    const card = cardOf(wanted, "guest", 10);
    await expect(networks.apply(wanted.uid, policyOf([card]), never)).rejects.toMatchObject({
      code: "NotFound",
    });
    await networks.ensure(wanted, never);
    await expect(
      networks.apply(wanted.uid, policyOf([{ ...card, subnet: "nowhere" }]), never),
    ).rejects.toMatchObject({ code: "NotFound", message: expect.stringContaining("nowhere") });
  });
});

const sender = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
`;

describe("isolation", () => {
  it("lets no frame of one guest reach another, whatever it pretends to be", async () => {
    const wanted = requestOf(213);
    const network = await networks.ensure(wanted, never);
    const good = await startGuest(wanted, network, "good", 10);
    const evil = await startGuest(wanted, network, "evil", 11);
    const hex = (mac: string) => mac.replaceAll(":", "");
    const evilMac = hex(evil.macAddress);
    const mark = "f0f0f0f0f0f0f0f0";
    const bodies = [
      `0806${"0001080006040002"}${evilMac}0ad50001${hex(good.macAddress)}0ad5000a`, // an ARP reply
      `86dd6000000000083aff${"fe80".padEnd(32, "0")}ff02${"0".repeat(26)}01${"8600"}${mark}`, // an advertisement
      `0800450000300000000040110000${"0ad50001"}ffffffff00430044001c0000${mark}`, // a DHCP offer
      `88b5${mark}`, // none of IP's
    ];
    const seen = await FramesIn.open(`/run/netns/${good.name}`, ["eth0"]);
    const targets = [hex(good.macAddress), "ffffffffffff", "333300000001", "02aabbccddee"];
    const frames = targets.flatMap((target) =>
      [evilMac, "02f0f0f0f0f0"].flatMap((source) =>
        bodies.map((body) => `${target}${source}${body}${mark}`.padEnd(124, "0")),
      ),
    );
    await evil.run("python3", "-c", sender, ...frames);
    expect(await evil.pings(good.ip)).toBe(true); // by the gateway, after all of the above
    const arrived = await seen.close();
    expect(arrived.some(({ hex: text }) => text.includes(mark))).toBe(false);
    const others = arrived.map(({ source }) => source).filter((source) => source !== good.macAddress);
    const bridge = await run("cat", [`/sys/class/net/br0/address`], {}).catch(() => undefined);
    expect(bridge).toBeUndefined(); // the host has no such bridge
    expect(new Set(others).size).toBe(1); // the gateway's
    expect(await good.run("ip", "neigh")).not.toContain(evil.macAddress);
  });

  it("survives a guest that takes the gateway's addresses", async () => {
    const wanted = requestOf(213);
    const network = await networks.ensure(wanted, never);
    const good = await startGuest(wanted, network, "good", 10);
    const evil = await startGuest(wanted, network, "evil", 11);
    await evil.run("ip", "address", "add", "10.213.0.1/24", "dev", "eth0");
    await evil.run("ip", "address", "add", "fd00:213::1/64", "dev", "eth0", "nodad");
    await good.run("ip", "neigh", "flush", "dev", "eth0");
    expect(await good.pings("10.213.0.1")).toBe(true);
    expect(await good.pings("fd00:213::1")).toBe(true);
    expect(await good.run("ip", "neigh")).not.toContain(evil.macAddress);
  });
});

describe("mending", () => {
  const breakages: Record<string, (of: ReturnType<typeof networkNames>) => Promise<unknown>> = {
    "the uplink is deleted": ({ uplink }) => run("ip", ["link", "del", "dev", uplink]),
    "the uplink is down": ({ uplink }) => run("ip", ["link", "set", "dev", uplink, "down"]),
    "the route is gone": () => run("ip", ["route", "del", "10.213.0.0/16"]),
    "the host's address is gone": ({ uplink }) => run("ip", ["address", "flush", "dev", uplink]),
    "the host's rule is gone": async ({ uplink }) => {
      const { stdout } = await run("ip", ["-o", "-4", "address", "show", "dev", uplink]);
      const address = /inet (\S+)\//.exec(stdout)?.[1] ?? "";
      await run("ip", ["rule", "del", "pref", "6464", "from", address]);
    },
    "the host's rules are flushed": () => run("nft", ["delete", "table", "inet", hostTable(namespace)]),
    "a chain of the host's rules is flushed": () =>
      run("nft", ["flush", "chain", "inet", hostTable(namespace), "postrouting"]),
    "the inner rules are flushed": ({ netnsPath }) =>
      run("nsenter", [`--net=${netnsPath}`, "nft", "flush", "ruleset"]),
    "the bridge is deleted": ({ netns }) => run("ip", ["-n", netns, "link", "del", "dev", "br0"]),
    "the bridge is down": ({ netns }) => run("ip", ["-n", netns, "link", "set", "dev", "br0", "down"]),
    "the inner routes are gone": ({ netns }) => run("ip", ["-n", netns, "route", "flush", "table", "900"]),
    "the inner rules of routing are gone": ({ netns }) => run("ip", ["-n", netns, "rule", "flush"]),
    "neighbours are no longer answered for": ({ netnsPath }) =>
      run("nsenter", [
        `--net=${netnsPath}`,
        ...[
          "sh",
          "-c",
          "echo 0 >/proc/sys/net/ipv4/conf/br0/proxy_arp_pvlan; echo 0 >/proc/sys/net/ipv4/ip_forward",
        ],
      ]),
    "the inner uplink is renamed": async ({ netns }) => {
      await run("ip", ["-n", netns, "link", "set", "dev", "uplink", "down"]);
      await run("ip", ["-n", netns, "link", "set", "dev", "uplink", "name", "other"]);
    },
    "the namespace lost its name": ({ netns }) => run("ip", ["netns", "del", netns]),
    "the namespace was replaced": async ({ netns }) => {
      await run("ip", ["netns", "del", netns]);
      await run("ip", ["netns", "add", netns]);
    },
    "both processes are killed": async ({ dnsGroup, dhcpGroup }) => {
      await cgroups.kill(dnsGroup);
      await cgroups.kill(dhcpGroup);
    },
  };

  it.each(Object.keys(breakages))("when %s", async (breakage) => {
    const wanted = requestOf(213, { hostRoute: true });
    const { hostAddress } = await networks.ensure(wanted, never);
    await breakages[breakage]?.(names(wanted));
    const network = await networks.ensure(wanted, never);
    expect(network.hostAddress).toBe(hostAddress);
    const guest = await startGuest(wanted, network, "guest", 10);
    const other = await startGuest(wanted, network, "other", 11);
    expect(await guest.resolve("guest", "10.213.0.1")).toBe(guest.ip);
    expect(await guest.pings(other.ip)).toBe(true);
    expect(await guest.pings(other.ipv6)).toBe(true);
    expect(await pings(guest.ip)).toBe(true);
    expect(await pingsFrom(hostAddress, guest.ip)).toBe(true);
    const rules = await run("nft", ["list", "table", "inet", hostTable(namespace)]);
    expect(rules.stdout).toContain("masquerade");
    const inner = await run("nsenter", [`--net=${names(wanted).netnsPath}`, "nft", "list", "ruleset"]);
    expect(inner.stdout).toContain("hook forward");
  });

  it("when a name without a namespace is left", async () => {
    const wanted = requestOf(213);
    await networks.ensure(wanted, never);
    const { netns, netnsPath, uplink, dnsGroup, dhcpGroup } = names(wanted);
    networks.close(); // with it end the processes that look after the rules
    networks = open();
    await cgroups.kill(dnsGroup);
    await cgroups.kill(dhcpGroup);
    await run("ip", ["netns", "del", netns]);
    // The kernel takes a namespace apart in the background; half of one would be another breakage.
    await waitFor("the uplink is gone", async () => !existsSync(`/sys/class/net/${uplink}`));
    await writeFile(netnsPath, "");
    const network = await networks.ensure(wanted, never);
    await startGuest(wanted, network, "guest", 10);
  });

  it.each(["same", "another"])(
    "gives guests back their bridge and neighbours, by the %s daemon",
    async (daemon) => {
      const wanted = requestOf(213);
      const network = await networks.ensure(wanted, never);
      const guest = await startGuest(wanted, network, "guest", 10);
      await run("ip", ["-n", names(wanted).netns, "link", "del", "dev", "br0"]);
      if (daemon === "another") {
        networks.close();
        networks = open();
      }
      await networks.ensure(wanted, never);
      await apply(wanted, [guest.card]);
      const { stdout } = await run("ip", [
        "-n",
        names(wanted).netns,
        "-d",
        "link",
        "show",
        "dev",
        guest.name,
      ]);
      expect(stdout).toContain("master br0");
      expect(stdout).toContain("isolated on");
      expect((await guest.dhcp())?.ip).toBe(guest.ip);
      expect(await pingsFrom(network.hostAddress, guest.ip)).toBe(true);
      expect(await guest.pings("fd00:213::1")).toBe(true);
    },
  );

  it.each(["dns", "dhcp"] as const)("is asked for by an event when the %s process dies", async (role) => {
    const wanted = requestOf(213);
    await networks.ensure(wanted, never);
    networks.close();
    networks = open(); // as after a restart of the daemon: the process is no child of this one
    await networks.ensure(wanted, never);
    const ending = new AbortController();
    const events = networks.events(ending.signal)[Symbol.asyncIterator]();
    const event = events.next();
    const { directory } = names(wanted);
    process.kill(Number(await readFile(join(directory, `${role}.pid`), "utf8")), "SIGKILL");
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
    const network = await networks.ensure(wanted, never);
    const guest = await startGuest(wanted, network, "guest", 10);
    expect(await guest.resolve("guest", "10.213.0.1")).toBe(guest.ip);
  });

  it("is asked for by an event when the namespace loses its name", async () => {
    const wanted = requestOf(213);
    await networks.ensure(wanted, never);
    const ending = new AbortController();
    const event = networks.events(ending.signal)[Symbol.asyncIterator]().next();
    await run("ip", ["netns", "del", names(wanted).netns]);
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
  });

  it("touches nothing in a network that is in order", async () => {
    const wanted = requestOf(213);
    await networks.ensure(wanted, never);
    const { directory, uplink, netns } = names(wanted);
    const state = async () => [
      await readFile(join(directory, "dns.pid"), "utf8"),
      await readFile(join(directory, "dhcp.pid"), "utf8"),
      await readFile(`/sys/class/net/${uplink}/ifindex`, "utf8"),
      (await run("ip", ["-n", netns, "-o", "link"])).stdout,
    ];
    const first = await state();
    await networks.ensure(wanted, never);
    networks.close();
    networks = open();
    await networks.ensure(wanted, never);
    expect(await state()).toEqual(first);
  });
});

describe("a network's structure", () => {
  it("gains and loses subnets, and the others' guests notice nothing", async () => {
    const wanted = requestOf(213);
    const [front, back] = wanted.subnets;
    if (!front || !back) throw new Error("two subnets");
    const small = { ...wanted, subnets: [front] };
    const network = await networks.ensure(small, never);
    const guest = await startGuest(small, network, "guest", 10);
    const both = await networks.ensure(wanted, never);
    const other = await startGuest(wanted, both, "other", 10, { subnet: "back" });
    expect(await guest.pings(other.ip)).toBe(true);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    await other.leave();
    await apply(wanted, [guest.card]);
    await networks.ensure(small, never);
    const links = await run("ip", ["-n", names(wanted).netns, "link"]);
    expect(links.stdout).not.toContain("br1");
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    expect(await pingsFrom(network.hostAddress, guest.ip)).toBe(true);
  });
});

describe("peerings", () => {
  const uid = newUid(systemRandom);
  function pair(): [NetworkRequest, NetworkRequest] {
    const [a, b] = [requestOf(213), requestOf(214)];
    const side = (other: NetworkRequest) => ({
      peerings: [{ uid, network: other.uid, ranges: [other.cidr, other.ipv6Cidr ?? ""] }],
    });
    return [
      { ...a, ...side(b) },
      { ...b, ...side(a) },
    ];
  }

  it("join two networks, in either order, until either or the peering goes", async () => {
    const [a, b] = pair();
    await networks.ensure(a, never); // waits for the other
    const networkB = await networks.ensure(b, never);
    const networkA = await networks.ensure(a, never);
    const guestA = await startGuest(a, networkA, "a", 10);
    const guestB = await startGuest(b, networkB, "b", 10, { subnet: "back" });
    const seen = await FramesIn.open(networkB.netns, [guestB.name]);
    expect(await guestA.pings(guestB.ip)).toBe(true);
    expect(await guestB.pings(guestA.ip)).toBe(true);
    expect(await guestA.pings(guestB.ipv6)).toBe(true);
    expect(await guestB.pings(guestA.ipv6)).toBe(true);
    // With the sources they have; no address of an uplink shows (100.64.0.0/10 begins with 0x64).
    const sources = (await seen.close())
      .filter(({ hex }) => hex.slice(24, 28) === "0800")
      .map(({ hex }) => hex.slice(52, 54));
    expect(sources).toContain("0a");
    expect(sources).not.toContain("64");

    networks.close();
    networks = open(); // the link stays while the other network has not been ensured yet
    await networks.ensure(a, never);
    await apply(a, [guestA.card]);
    await networks.ensure(b, never);
    await apply(b, [guestB.card]);
    expect(await guestA.pings(guestB.ip)).toBe(true);

    await networks.ensure({ ...a, peerings: [] }, never);
    expect(await guestA.pings(guestB.ip)).toBe(false);
    await networks.ensure(b, never);
    await networks.ensure(a, never);
    expect(await guestA.pings(guestB.ip)).toBe(true);

    await networks.remove(a.uid, never);
    const links = async () => (await run("ip", ["-n", names(b).netns, "-o", "link"])).stdout;
    await waitFor("the link is gone", async () => !(await links()).includes(`p${uid.slice(0, 14)}`));
    const inner = await run("ip", ["-n", names(b).netns, "route"]);
    expect(inner.stdout).toContain("unreachable 10.213.0.0/16");
  });
});

describe("the outside", () => {
  const outside = `${namespace}-outside`;
  const link = `${namespace}o`;

  beforeAll(async () => {
    await run("ip", ["netns", "add", outside]);
    await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", outside]);
    for (const [netns, device, end] of [
      [undefined, link, "1"],
      [outside, "eth0", "2"],
    ] as const) {
      const ip = (...args: string[]) => run("ip", [...(netns ? ["-n", netns] : []), ...args]);
      await ip("address", "add", `10.250.250.${end}/24`, "dev", device);
      await ip("address", "add", `fd00:250::${end}/64`, "dev", device, "nodad");
      await ip("link", "set", "dev", device, "up");
    }
  });

  afterAll(async () => {
    await run("ip", ["link", "del", "dev", link]);
    await run("ip", ["netns", "del", outside]);
  });

  it("is reached behind the host's address, from networks with the same range, and does not reach in", async () => {
    const [wanted, twin] = [requestOf(213), requestOf(213)];
    const guest = await startGuest(wanted, await networks.ensure(wanted, never), "guest", 10);
    const other = await startGuest(twin, await networks.ensure(twin, never), "guest", 10);
    for (const one of [guest, other]) {
      expect(await one.pings("10.250.250.2")).toBe(true); // it knows no way back but to the host
    }
    if ((await run("ip", ["-6", "route", "show", "default"])).stdout !== "") {
      expect(await guest.pings("fd00:250::2")).toBe(true);
    }
    await run("ip", ["-n", outside, "route", "add", "default", "via", "10.250.250.1"]);
    expect(await pings("10.250.250.1", [`--net=/run/netns/${outside}`])).toBe(true);
    expect(await pings(guest.ip, [`--net=/run/netns/${outside}`])).toBe(false);
  });

  it("is closed to networks without it, and to subnets whose routes do not lead there", async () => {
    const closed = requestOf(213, { internet: false });
    const routes = [{ destination: "10.250.250.0/24", target: "internet" as const }];
    const subnets = closed.subnets.map((subnet) => (subnet.name === "back" ? { ...subnet, routes } : subnet));
    const network = await networks.ensure({ ...closed, subnets }, never);
    const guest = await startGuest(closed, network, "guest", 10);
    const other = await startGuest(closed, network, "other", 10, { subnet: "back" });
    expect(await guest.pings("10.250.250.2")).toBe(false);
    expect(await other.pings("10.250.250.2")).toBe(true);
    expect(await guest.pings(other.ip)).toBe(true);
    expect(await guest.resolve("other", "10.213.0.1")).toBe(other.ip);
    expect(await pingsFrom(network.hostAddress, guest.ip)).toBe(true);
    expect(await guest.pings(network.hostAddress)).toBe(true);

    const none = { destination: "0.0.0.0/0", target: "none" as const };
    const refusing = subnets.map((subnet) => ({ ...subnet, routes: [none] }));
    await networks.ensure({ ...closed, internet: true, subnets: refusing }, never);
    expect(await other.pings("10.250.250.2")).toBe(false);
    expect(await guest.pings(other.ip)).toBe(true);
    await networks.ensure({ ...closed, internet: true }, never);
    expect(await guest.pings("10.250.250.2")).toBe(true);
  });
});

describe("side by side", () => {
  it("two daemons choose different uplinks for the same network, at the same moment", async () => {
    const other = `${namespace}z`;
    const directory = await mkdtemp(join(tmpdir(), "strata-networks-"));
    const config = { namespace: other, runDir: directory };
    const second = createNetworks({ config, cgroups, clock: systemClock, logger: silentLogger });
    try {
      const wanted = requestOf(213);
      const all = await Promise.all([networks.ensure(wanted, never), second.ensure(wanted, never)]);
      expect(new Set(all.map(({ hostAddress }) => hostAddress)).size).toBe(2);
      await second.remove(wanted.uid, never);
      const guest = await startGuest(wanted, await networks.ensure(wanted, never), "guest", 10);
      expect(await pingsFrom(all[0].hostAddress, guest.ip)).toBe(true);
    } finally {
      await second.removeEverything(never);
      second.close();
      await cgroups.remove(other);
      await rm(directory, { recursive: true, force: true });
    }
  });
});

describe("beside firewalls that drop what they do not know", () => {
  it("guests get out, nobody else gets more, and everything is as before in the end", async () => {
    const directory = await mkdtemp(join(tmpdir(), "strata-networks-box-"));
    const groups = join(directory, "cgroup");
    await mkdir(groups);
    try {
      const { stdout } = await run("unshare", [
        ...["--net", "--mount", "sh", "-ec"],
        'mkdir -p /run/netns; mount -t tmpfs netns /run/netns; mount --rbind /sys/fs/cgroup "$1"; mount -t sysfs sysfs /sys; shift; exec "$@"',
        ...["sh", groups, process.execPath, fileURLToPath(new URL("./networks-box.ts", import.meta.url))],
        ...[`${namespace}b`, directory, groups],
      ]);
      expect(JSON.parse(stdout)).toEqual({
        addresses: ["10.213.0.10", "fd00:213::10"],
        outside: true,
        outside6: true,
        neighbour: false,
        acceptances: 7, // two in each chain, and the one that was there
        afterRestart: false,
        afterEnsure: true,
        foreignRestored: true,
        settings: ["0 0 1", "1 1 2", "0 0 1"],
        tables: "table ip filter\ntable ip6 filter\ntable inet other\n",
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});

describe("kill -9", () => {
  const seed = Number(process.env.STRATA_SEED ?? 1);

  it(`at 20 moments leaves nothing once completed (seed ${seed})`, { timeout: 180_000 }, async () => {
    const random = seededRandom(seed);
    await chmod(runDir, 0o711);
    for (let moment = 0; moment < 20; moment++) {
      const wanted = requestOf(213, { hostRoute: true });
      const child = spawn(
        process.execPath,
        [
          fileURLToPath(new URL("./networks-child.ts", import.meta.url)),
          namespace,
          runDir,
          JSON.stringify(wanted),
        ],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      await once(createInterface(child.stdout), "line");
      await systemClock.sleep(randomInt(random, 700));
      child.kill("SIGKILL");
      await once(child, "exit");
      if (moment % 2 === 0) {
        const network = await networks.ensure(wanted, never);
        const guest = await joinGuest(wanted, network, "guest", 9);
        expect((await guest.dhcp())?.ip, `after moment ${moment}`).toBe(guest.ip);
        await guest.leave();
      }
      await networks.remove(wanted.uid, never);
      expect(await networks.list(), `after moment ${moment}`).toEqual([]);
      expect(await hostRules(), `after moment ${moment}`).toEqual([]);
    }
    await networks.removeEverything(never);
    await cgroups.remove(namespace);
    await waitFor("nothing is left", async () => (await leaks()).length === 0);
  });
});
