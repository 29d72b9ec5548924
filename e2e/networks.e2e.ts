import { describe, expect, it } from "vitest";
import { newUid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import type { NetworkRequest } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";
import { FramesIn } from "./frames.ts";
import { pings, pingsFrom } from "./netns-guest.ts";
import { NetworksHost, never, waitFor } from "./networks-host.ts";
import { cardOf, policyOf, requestOf } from "./networks-scene.ts";

const host = NetworksHost.forTests();

describe("networks on the kernel", () => {
  it("give guests of all subnets addresses, names, ways to one another and out", async () => {
    const wanted = requestOf(213, { mtu: 1300 });
    const network = await host.ensure(wanted);
    const web = await host.join(wanted, network, "web", 10);
    expect(await web.dhcp()).toEqual({
      ip: web.ip,
      router: "10.213.0.1",
      dns: "10.213.0.1",
      domain: "demo.internal",
      search: "demo.internal",
      mtu: "1300",
    });
    expect(await web.dhcp6()).toBe(web.ipv6);
    const near = await host.start(wanted, network, "near", 11);
    const far = await host.start(wanted, network, "far", 10, { subnet: "back" });
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
    const network = await host.ensure(wanted);
    const guest = await host.start(wanted, network, "guest", 10);
    expect(await pings(guest.ip)).toBe(true);
    expect(await pings(guest.ipv6)).toBe(true);
    const wider = requestOf(213, { cidr: "10.212.0.0/15", hostRoute: true });
    await expect(host.ensure(wider)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining(host.names(wanted).uplink),
    });
    expect(await host.networks.list()).toEqual([wanted.uid]);
    const beside = requestOf(213);
    const other = await host.ensure(beside);
    const twin = await host.start(beside, other, "twin", 77);
    expect(await pings(twin.ip)).toBe(false);
    expect(await pingsFrom(other.hostAddress, twin.ip)).toBe(true);
  });

  it("with the same addresses do not meet", async () => {
    const [a, b] = [requestOf(213), requestOf(213)];
    const networkA = await host.ensure(a);
    const networkB = await host.ensure(b);
    expect(networkA.hostAddress).not.toBe(networkB.hostAddress);
    const guestA = await host.start(a, networkA, "guest", 10);
    const guestB = await host.start(b, networkB, "guest", 10);
    const onlyA = await host.start(a, networkA, "only", 20);
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
    const network = await host.ensure(wanted);
    await host.apply(wanted, []);
    const stranger = await host.plug(network, cardOf(wanted, "stranger", 99));
    expect(await stranger.dhcp(1)).toBeUndefined();
    expect(await stranger.dhcp6(1)).toBeUndefined();
  });

  it("hand addresses on to the next guest, and forget the name of the one before", async () => {
    host.reopen({ forgetAfterMs: 600_000 }); // the next guest does not wait for that
    const wanted = requestOf(213);
    const network = await host.ensure(wanted);
    const old = await host.start(wanted, network, "old", 10);
    await host.apply(wanted, []);
    await old.leave();
    const next = await host.join(wanted, network, "next", 10);
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
    const network = await host.ensure(wanted);
    const guest = await host.start(wanted, network, "before", 10);
    host.reopen();
    await host.ensure(wanted);
    await host.apply(wanted, [{ ...guest.card, hostname: "after", ipAddress: "10.213.0.20" }]);
    await guest.run("ip", "address", "flush", "dev", "eth0", "scope", "global"); // the old one may not be used
    expect((await guest.dhcp())?.ip).toBe("10.213.0.20");
    await waitFor("the new name", async () => (await guest.resolve("after", "10.213.0.1")) === "10.213.0.20");
    expect(await guest.resolve("before", "10.213.0.1")).toBeUndefined();
    expect(await pingsFrom(network.hostAddress, "10.213.0.20")).toBe(true);
    const neighbours = await run("ip", ["-n", host.names(wanted).netns, "neigh", "show", "nud", "permanent"]);
    expect(neighbours.stdout).not.toContain("10.213.0.10 ");
  });

  it("refuse a card in a subnet that they do not have", async () => {
    const wanted = requestOf(213);
    const card = cardOf(wanted, "guest", 10);
    await expect(host.networks.apply(wanted.uid, policyOf([card]), never)).rejects.toMatchObject({
      code: "NotFound",
    });
    await host.ensure(wanted);
    await expect(
      host.networks.apply(wanted.uid, policyOf([{ ...card, subnet: "nowhere" }]), never),
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
    const network = await host.ensure(wanted);
    const good = await host.start(wanted, network, "good", 10);
    const evil = await host.start(wanted, network, "evil", 11);
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
    const bridge = await run("ip", ["-n", host.names(wanted).netns, "-o", "link", "show", "dev", "br0"]);
    const gateway = /link\/ether (\S+)/.exec(bridge.stdout)?.[1];
    const sources = new Set(arrived.map(({ source }) => source));
    expect(sources).toEqual(new Set([good.macAddress, gateway]));
    expect(await good.run("ip", "neigh")).not.toContain(evil.macAddress);
  });

  it("survives a guest that takes the gateway's addresses", async () => {
    const wanted = requestOf(213);
    const network = await host.ensure(wanted);
    const good = await host.start(wanted, network, "good", 10);
    const evil = await host.start(wanted, network, "evil", 11);
    await evil.run("ip", "address", "add", "10.213.0.1/24", "dev", "eth0");
    await evil.run("ip", "address", "add", "fd00:213::1/64", "dev", "eth0", "nodad");
    await good.run("ip", "neigh", "flush", "dev", "eth0");
    expect(await good.pings("10.213.0.1")).toBe(true);
    expect(await good.pings("fd00:213::1")).toBe(true);
    expect(await good.run("ip", "neigh")).not.toContain(evil.macAddress);
  });
});

describe("a network's structure", () => {
  it("gains and loses subnets, and the others' guests notice nothing", async () => {
    const wanted = requestOf(213);
    const [front, back] = wanted.subnets;
    if (!front || !back) throw new Error("two subnets");
    const small = { ...wanted, subnets: [front] };
    const network = await host.ensure(small);
    const guest = await host.start(small, network, "guest", 10);
    const both = await host.ensure(wanted);
    const other = await host.start(wanted, both, "other", 10, { subnet: "back" });
    expect(await guest.pings(other.ip)).toBe(true);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    await other.leave();
    await host.apply(wanted, [guest.card]);
    await host.ensure(small);
    const links = await run("ip", ["-n", host.names(wanted).netns, "link"]);
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
    await host.ensure(a); // waits for the other
    const networkB = await host.ensure(b);
    const networkA = await host.ensure(a);
    const guestA = await host.start(a, networkA, "a", 10);
    const guestB = await host.start(b, networkB, "b", 10, { subnet: "back" });
    const seen = await FramesIn.open(networkB.netns, [guestB.name]);
    expect(await guestA.pings(guestB.ip)).toBe(true);
    expect(await guestB.pings(guestA.ip)).toBe(true);
    expect(await guestA.pings(guestB.ipv6)).toBe(true);
    expect(await guestB.pings(guestA.ipv6)).toBe(true);
    // With the sources they have; no address of an uplink shows (100.64.0.0/11 begins with 0x64).
    const sources = (await seen.close())
      .filter(({ hex }) => hex.slice(24, 28) === "0800")
      .map(({ hex }) => hex.slice(52, 54));
    expect(sources).toContain("0a");
    expect(sources).not.toContain("64");

    host.reopen(); // the link stays while the other network has not been ensured yet
    await host.ensure(a);
    await host.apply(a, [guestA.card]);
    await host.ensure(b);
    await host.apply(b, [guestB.card]);
    expect(await guestA.pings(guestB.ip)).toBe(true);

    await host.ensure({ ...a, peerings: [] });
    expect(await guestA.pings(guestB.ip)).toBe(false);
    await host.ensure(b);
    await host.ensure(a);
    expect(await guestA.pings(guestB.ip)).toBe(true);

    await host.networks.remove(a.uid, never);
    const links = async () => (await run("ip", ["-n", host.names(b).netns, "-o", "link"])).stdout;
    await waitFor("the link is gone", async () => !(await links()).includes(`p${uid.slice(0, 14)}`));
    const inner = await run("ip", ["-n", host.names(b).netns, "route"]);
    expect(inner.stdout).toContain("unreachable 10.213.0.0/16");
  });
});
