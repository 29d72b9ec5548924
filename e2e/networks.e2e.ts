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
import type { NetworkAttachment, NetworkRequest } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { NetnsGuest, pings } from "./netns-guest.ts";

const never = new AbortController().signal;
const namespace = `t${newUid(systemRandom).slice(0, 7)}`;

let runDir: string;
let cgroups: Cgroups;
let networks: KernelNetworks;
let before: Snapshot;
const guests: NetnsGuest[] = [];

function request(third: number): NetworkRequest {
  return {
    uid: newUid(systemRandom),
    cidr: `10.213.${third}.0/24`,
    gateway: `10.213.${third}.1`,
    domain: "demo.internal",
  };
}

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

/** A guest with a reservation; its address ends in `last`. */
async function joinGuest(
  wanted: NetworkRequest,
  network: NetworkAttachment,
  hostname: string,
  last: number,
): Promise<NetnsGuest & { ip: string; uid: string }> {
  const uid = newUid(systemRandom);
  const macAddress = `02:13:${[...Buffer.from(uid).subarray(0, 4)].map((b) => b.toString(16)).join(":")}`;
  const ip = wanted.gateway.replace(/\d+$/, String(last));
  await networks.reserve(wanted.uid, { uid, hostname, macAddress, ipAddress: ip });
  const guest = await NetnsGuest.join(`${namespace}${uid.slice(0, 6)}`, network, macAddress, runDir);
  guests.push(guest);
  return Object.assign(guest, { ip, uid });
}

/** What of ours is on the host now and was not before; other tests and daemons may run beside. */
async function leaks(): Promise<string[]> {
  const marks = [namespace, uplinkPrefix(namespace), "10.213.", runDir];
  const found = await findLeaks(before, marks);
  return found.filter((line) => marks.some((mark) => line.includes(mark)));
}

async function waitFor(what: string, condition: () => Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = systemClock.monotonicMs() + timeoutMs;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`waited in vain: ${what}`);
    await systemClock.sleep(20);
  }
}

beforeAll(async () => {
  before = await takeSnapshot();
  runDir = await mkdtemp(join(tmpdir(), "strata-networks-"));
  cgroups = await openCgroups({ clock: systemClock });
  networks = open();
});

afterEach(async () => {
  for (const guest of guests.splice(0)) await guest.leave();
  for (const uid of await networks.list()) await networks.remove(uid, never);
});

afterAll(async () => {
  await networks.removeEverything(never);
  networks.close();
  await cgroups.remove(namespace);
  await rm(runDir, { recursive: true, force: true });
  expect(await leaks()).toEqual([]);
});

describe("networks on the kernel", () => {
  it("give guests addresses, names, a way out and a way in", async () => {
    const wanted = request(1);
    const network = await networks.ensure(wanted, never);
    const web = await joinGuest(wanted, network, "web", 10);
    const db = await joinGuest(wanted, network, "db", 11);

    expect(await web.dhcp()).toEqual({
      ip: web.ip,
      router: wanted.gateway,
      dns: wanted.gateway,
      domain: "demo.internal",
      search: "demo.internal",
      mtu: String(network.mtu),
    });
    expect((await db.dhcp())?.ip).toBe(db.ip);
    expect(await web.resolve("db", wanted.gateway)).toBe(db.ip);
    expect(await web.resolve("db.demo.internal", wanted.gateway)).toBe(db.ip);
    expect(await web.resolve("nobody.demo.internal", wanted.gateway)).toBeUndefined();
    expect(await web.pings(db.ip)).toBe(true);
    expect(await web.pings(wanted.gateway)).toBe(true);
    expect(await web.pings("100.64.0.1")).toBe(true);
    expect(await pings(web.ip)).toBe(true);
  });

  it("give nothing to hardware addresses without a reservation", async () => {
    const wanted = request(1);
    const network = await networks.ensure(wanted, never);
    const stranger = await NetnsGuest.join(`${namespace}x`, network, "02:13:00:00:00:99", runDir);
    guests.push(stranger);
    expect(await stranger.dhcp(1)).toBeUndefined();
  });

  it("hand an address on to the next guest, and forget the name of the one before", async () => {
    networks.close();
    networks = open({ forgetAfterMs: 600_000 }); // the next guest does not wait for that
    const wanted = request(1);
    const network = await networks.ensure(wanted, never);
    const old = await joinGuest(wanted, network, "old", 10);
    expect((await old.dhcp())?.ip).toBe(old.ip);
    await networks.release(wanted.uid, old.uid);
    const next = await joinGuest(wanted, network, "next", 10);
    await old.leave();
    expect((await next.dhcp(1))?.ip).toBe(old.ip);
    expect(await next.resolve("next", wanted.gateway)).toBe(next.ip);
    await waitFor(
      "the old name is forgotten",
      async () => (await next.resolve("old", wanted.gateway)) === undefined,
    );
    await networks.release(wanted.uid, old.uid); // absent is success
  });

  it("take up a changed reservation", async () => {
    const wanted = request(1);
    const network = await networks.ensure(wanted, never);
    const guest = await joinGuest(wanted, network, "before", 10);
    const macAddress = await macOf(guest);
    expect((await guest.dhcp())?.ip).toBe("10.213.1.10");
    await networks.reserve(wanted.uid, {
      uid: guest.uid,
      hostname: "after",
      macAddress,
      ipAddress: "10.213.1.20",
    });
    expect((await guest.dhcp())?.ip).toBe("10.213.1.20");
    await waitFor(
      "the new name",
      async () => (await guest.resolve("after", wanted.gateway)) === "10.213.1.20",
    );
    expect(await guest.resolve("before", wanted.gateway)).toBeUndefined();
  });

  it("keep the guests of two networks apart, also when one adds routes", async () => {
    const [a, b] = [request(1), request(2)];
    const guestA = await joinGuest(a, await networks.ensure(a, never), "a", 10);
    const guestB = await joinGuest(b, await networks.ensure(b, never), "b", 10);
    await guestA.dhcp();
    await guestB.dhcp();
    expect(await pings(guestB.ip)).toBe(true);
    expect(await guestA.pings(guestB.ip)).toBe(false);
    // With a source address of the other network, or of the host.
    for (const source of ["10.213.2.77", "100.64.0.1"]) {
      await guestA.run("ip", "address", "add", `${source}/32`, "dev", "eth0");
      await guestA.run("ip", "route", "replace", `${guestB.ip}/32`, "via", a.gateway, "src", source);
      expect(await guestA.pings(guestB.ip)).toBe(false);
    }
  });

  it("do not let a guest pose as the gateway", async () => {
    const wanted = request(1);
    const network = await networks.ensure(wanted, never);
    const good = await joinGuest(wanted, network, "good", 10);
    const evil = await joinGuest(wanted, network, "evil", 11);
    await good.dhcp();
    await evil.dhcp();
    const { netns } = networkNames({ namespace, runDir }, wanted.uid);
    const address = ["address", "add", `${wanted.gateway}/24`, "dev"];
    await evil.run("ip", ...address, "eth0");
    // Without the real gateway, only the impostor could answer.
    await run("ip", ["-n", netns, "address", "del", `${wanted.gateway}/24`, "dev", "br0"]);
    await good.run("ip", "neigh", "flush", "dev", "eth0");
    expect(await good.pings(wanted.gateway)).toBe(false);
    await run("ip", ["-n", netns, ...address, "br0"]);
    await good.run("ip", "neigh", "flush", "dev", "eth0");
    expect(await good.pings(wanted.gateway)).toBe(true);
  });

  it("refuse a range that the host routes elsewhere, and name the interface", async () => {
    const wanted = request(1);
    await networks.ensure(wanted, never);
    const wider = { ...request(1), cidr: "10.213.0.0/16", gateway: "10.213.0.1" };
    await expect(networks.ensure(wider, never)).rejects.toMatchObject({
      code: "Conflict",
      message: expect.stringContaining(networkNames({ namespace, runDir }, wanted.uid).uplink),
    });
    expect(await networks.list()).toEqual([wanted.uid]);
  });
});

describe("mending", () => {
  const breakages: Record<string, (names: ReturnType<typeof networkNames>) => Promise<unknown>> = {
    "the uplink is deleted": ({ uplink }) => run("ip", ["link", "del", "dev", uplink]),
    "the uplink is down": ({ uplink }) => run("ip", ["link", "set", "dev", uplink, "down"]),
    "the route is gone": () => run("ip", ["route", "del", "10.213.3.0/24"]),
    "the host's address is gone": ({ uplink }) => run("ip", ["address", "flush", "dev", uplink]),
    "the host's rules are flushed": () => run("nft", ["delete", "table", "inet", hostTable(namespace)]),
    "a chain of the host's rules is flushed": () =>
      run("nft", ["flush", "chain", "inet", hostTable(namespace), "postrouting"]),
    "the inner rules are flushed": ({ netnsPath }) =>
      run("nsenter", [`--net=${netnsPath}`, "nft", "flush", "ruleset"]),
    "the bridge is deleted": ({ netns }) => run("ip", ["-n", netns, "link", "del", "dev", "br0"]),
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
    "a name without a namespace is left": async ({ netns, netnsPath, uplink, dnsGroup, dhcpGroup }) => {
      await run("ip", ["netns", "del", netns]);
      await cgroups.kill(dnsGroup);
      await cgroups.kill(dhcpGroup);
      // The kernel takes a namespace apart in the background; half of one would be another breakage.
      await waitFor("the uplink is gone", async () => !existsSync(`/sys/class/net/${uplink}`));
      await writeFile(netnsPath, "");
    },
  };

  it.each(Object.keys(breakages))("when %s", async (breakage) => {
    const wanted = request(3);
    const names = networkNames({ namespace, runDir }, wanted.uid);
    await networks.ensure(wanted, never);
    await breakages[breakage]?.(names);
    const network = await networks.ensure(wanted, never);
    const guest = await joinGuest(wanted, network, "guest", 10);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    expect(await guest.resolve("guest", wanted.gateway)).toBe(guest.ip);
    expect(await pings(guest.ip)).toBe(true);
    const rules = await run("nft", ["list", "table", "inet", hostTable(namespace)]);
    expect(rules.stdout).toContain("masquerade");
    const inner = await run("nsenter", [`--net=${names.netnsPath}`, "nft", "list", "ruleset"]);
    expect(inner.stdout).toContain("policy drop");
  });

  it("gives guests back their bridge", async () => {
    const wanted = request(3);
    const network = await networks.ensure(wanted, never);
    const guest = await joinGuest(wanted, network, "guest", 10);
    const { netns } = networkNames({ namespace, runDir }, wanted.uid);
    await run("ip", ["-n", netns, "link", "del", "dev", "br0"]);
    await networks.ensure(wanted, never);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
  });

  it.each(["dns", "dhcp"] as const)("is asked for by an event when the %s process dies", async (role) => {
    const wanted = request(3);
    await networks.ensure(wanted, never);
    networks.close();
    networks = open(); // as after a restart of the daemon: the process is no child of this one
    await networks.ensure(wanted, never);
    const ending = new AbortController();
    const events = networks.events(ending.signal)[Symbol.asyncIterator]();
    const event = events.next();
    const { directory } = networkNames({ namespace, runDir }, wanted.uid);
    process.kill(Number(await readFile(join(directory, `${role}.pid`), "utf8")), "SIGKILL");
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
    const network = await networks.ensure(wanted, never);
    const guest = await joinGuest(wanted, network, "guest", 10);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    expect(await guest.resolve("guest", wanted.gateway)).toBe(guest.ip);
  });

  it("is asked for by an event when the namespace loses its name", async () => {
    const wanted = request(3);
    await networks.ensure(wanted, never);
    const ending = new AbortController();
    const event = networks.events(ending.signal)[Symbol.asyncIterator]().next();
    await run("ip", ["netns", "del", networkNames({ namespace, runDir }, wanted.uid).netns]);
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
  });

  it("touches nothing in a network that is in order", async () => {
    const wanted = request(3);
    await networks.ensure(wanted, never);
    const { directory, uplink } = networkNames({ namespace, runDir }, wanted.uid);
    const state = async () => [
      await readFile(join(directory, "dns.pid"), "utf8"),
      await readFile(join(directory, "dhcp.pid"), "utf8"),
      await readFile(`/sys/class/net/${uplink}/ifindex`, "utf8"),
    ];
    const first = await state();
    await networks.ensure(wanted, never);
    networks.close();
    networks = open();
    await networks.ensure(wanted, never);
    expect(await state()).toEqual(first);
  });
});

describe("the outside", () => {
  const outside = `${namespace}-outside`;
  const link = `${namespace}o`;

  beforeAll(async () => {
    await run("ip", ["netns", "add", outside]);
    await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", outside]);
    await run("ip", ["address", "add", "10.213.250.1/24", "dev", link]);
    await run("ip", ["link", "set", "dev", link, "up"]);
    await run("ip", ["-n", outside, "address", "add", "10.213.250.2/24", "dev", "eth0"]);
    await run("ip", ["-n", outside, "link", "set", "dev", "eth0", "up"]);
  });

  afterAll(async () => {
    await run("ip", ["link", "del", "dev", link]);
    await run("ip", ["netns", "del", outside]);
  });

  it("is reached behind the host's address, and does not reach in", async () => {
    const wanted = request(4);
    const guest = await joinGuest(wanted, await networks.ensure(wanted, never), "guest", 10);
    await guest.dhcp();
    expect(await guest.pings("10.213.250.2")).toBe(true); // it knows no way back but to the host
    await run("ip", ["-n", outside, "route", "add", "default", "via", "10.213.250.1"]);
    expect(await pings("10.213.250.1", [`--net=/run/netns/${outside}`])).toBe(true);
    expect(await pings(guest.ip, [`--net=/run/netns/${outside}`])).toBe(false);
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
        address: "10.213.60.10",
        outside: true,
        neighbour: false,
        acceptances: 5, // two in each chain, and the one that was there
        afterRestart: false,
        afterEnsure: true,
        foreignRestored: true,
        forwarding: ["0", "1", "0"],
        tables: "table ip filter\ntable inet other\n",
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});

describe("kill -9", () => {
  const seed = Number(process.env.STRATA_SEED ?? 1);

  it(`at 20 moments leaves nothing once completed (seed ${seed})`, { timeout: 120_000 }, async () => {
    const random = seededRandom(seed);
    await chmod(runDir, 0o711);
    for (let moment = 0; moment < 20; moment++) {
      const wanted = request(5);
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
      await systemClock.sleep(randomInt(random, 350));
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
    }
    await networks.removeEverything(never);
    await cgroups.remove(namespace);
    expect(await leaks()).toEqual([]);
  });
});

async function macOf(guest: NetnsGuest): Promise<string> {
  const shown = await guest.run("ip", "-o", "link", "show", "dev", "eth0");
  return /link\/ether ([0-9a-f:]+)/.exec(shown)?.[1] ?? "";
}
