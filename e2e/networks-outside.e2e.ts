import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { createNetworks } from "../src/host/networks/kernel-networks.ts";
import { run } from "../src/host/run.ts";
import { pings, pingsFrom } from "./netns-guest.ts";
import { NetworksHost, never } from "./networks-host.ts";
import { requestOf } from "./networks-scene.ts";

const host = NetworksHost.forTests();

describe("the outside", () => {
  const outside = `${host.namespace}-outside`;
  const link = `${host.namespace}o`;

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
    const guest = await host.start(wanted, await host.ensure(wanted), "guest", 10);
    const other = await host.start(twin, await host.ensure(twin), "guest", 10);
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
    const network = await host.ensure({ ...closed, subnets });
    const guest = await host.start(closed, network, "guest", 10);
    const other = await host.start(closed, network, "other", 10, { subnet: "back" });
    expect(await guest.pings("10.250.250.2")).toBe(false);
    expect(await other.pings("10.250.250.2")).toBe(true);
    expect(await guest.pings(other.ip)).toBe(true);
    expect(await guest.resolve("other", "10.213.0.1")).toBe(other.ip);
    expect(await pingsFrom(network.hostAddress, guest.ip)).toBe(true);
    expect(await guest.pings(network.hostAddress)).toBe(true);

    const none = { destination: "0.0.0.0/0", target: "none" as const };
    const refusing = subnets.map((subnet) => ({ ...subnet, routes: [none] }));
    await host.ensure({ ...closed, internet: true, subnets: refusing });
    expect(await other.pings("10.250.250.2")).toBe(false);
    expect(await guest.pings(other.ip)).toBe(true);
    await host.ensure({ ...closed, internet: true });
    expect(await guest.pings("10.250.250.2")).toBe(true);
  });
});

describe("side by side", () => {
  it("two daemons choose different uplinks for the same network, at the same moment", async () => {
    const other = `${host.namespace}z`;
    const directory = await mkdtemp(join(tmpdir(), "strata-networks-"));
    const config = { namespace: other, runDir: directory };
    const second = createNetworks({
      config,
      cgroups: host.cgroups,
      clock: systemClock,
      logger: silentLogger,
    });
    try {
      const wanted = requestOf(213);
      const all = await Promise.all([host.ensure(wanted), second.ensure(wanted, never)]);
      expect(new Set(all.map(({ hostAddress }) => hostAddress)).size).toBe(2);
      await second.remove(wanted.uid, never);
      const guest = await host.start(wanted, await host.ensure(wanted), "guest", 10);
      expect(await pingsFrom(all[0].hostAddress, guest.ip)).toBe(true);
    } finally {
      await second.removeEverything(never);
      second.close();
      await host.cgroups.remove(other);
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
        ...[`${host.namespace}b`, directory, groups],
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
