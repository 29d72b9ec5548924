import fc from "fast-check";
import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";
import { cardTexts } from "./cards.ts";
import { checkGuest, type LxcPlace, lxcConfig } from "./lxc-config.ts";

const guest: GuestSpec = {
  uid: "0123456789abcdef" as Uid,
  title: "demo/web",
  hostname: "web",
  type: "container",
  cpus: 2,
  memoryMib: 512,
  maxProcesses: 4096,
  root: { type: "tree", path: "/state/disks/0123456789abcdef/tree", idBase: 1_000_000, idCount: 65_536 },
  nics: [
    {
      name: "eth0",
      macAddress: "02:ab:cd:00:00:05",
      ipAddress: "10.1.2.5",
      prefixLength: 20,
      gateway: "10.1.0.1",
      ipv6: { address: "fd00:1:2::5", prefixLength: 64, gateway: "fd00:1:2::1" },
      mtu: 1450,
      netns: "/run/netns/strata-abc",
      bridge: "br0",
      port: "p0123456789",
    },
  ],
  seed: { metaData: "", userData: "", networkConfig: "" },
  config: {},
};

const place: LxcPlace = {
  seedDir: "/state/lxc/0123456789abcdef/seed",
  consoleLog: "/state/lxc/0123456789abcdef/console/log",
  guestGroup: "strata/0123456789abcdef",
  monitorGroup: "strata.monitors/0123456789abcdef",
  plugCards: {
    script: "/state/lxc/.tools/plug-cards",
    cardsDir: "/state/lxc/0123456789abcdef/cards",
    groupDirs: ["/sys/fs/cgroup/strata/0123456789abcdef"],
  },
  apparmorProfile: "lxc-strata-container",
  lxcfs: true,
  maxOpenFiles: 1_048_576,
  seccompProfile: "/usr/share/lxc/config/common.seccomp",
};

const hostile = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string().map((text) => `${text}\nlxc.mount.entry = / mnt none bind 0 0`),
  fc.string().map((text) => `a${text}`),
);

test("a container with a network card, on a host with AppArmor", () => {
  expect(lxcConfig(guest, place)).toMatchInlineSnapshot(`
    "lxc.uts.name = web
    lxc.rootfs.path = dir:/state/disks/0123456789abcdef/tree
    lxc.idmap = u 0 1000000 65536
    lxc.idmap = g 0 1000000 65536
    lxc.apparmor.profile = lxc-strata-container
    lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp
    lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
    lxc.prlimit.nofile = 1024:524288
    lxc.proc.oom_score_adj = 0
    lxc.cgroup.dir.container = strata/0123456789abcdef/payload
    lxc.cgroup.dir.monitor = strata.monitors/0123456789abcdef/monitor
    lxc.cgroup.dir.monitor.pivot = strata.monitors/0123456789abcdef/pivot
    lxc.cgroup.devices.deny = a
    lxc.cgroup.devices.allow = c *:* m
    lxc.cgroup.devices.allow = b *:* m
    lxc.cgroup.devices.allow = c 1:3 rwm
    lxc.cgroup.devices.allow = c 1:5 rwm
    lxc.cgroup.devices.allow = c 1:7 rwm
    lxc.cgroup.devices.allow = c 1:8 rwm
    lxc.cgroup.devices.allow = c 1:9 rwm
    lxc.cgroup.devices.allow = c 5:0 rwm
    lxc.cgroup.devices.allow = c 5:1 rwm
    lxc.cgroup.devices.allow = c 5:2 rwm
    lxc.cgroup.devices.allow = c 136:* rwm
    lxc.cgroup2.devices.deny = a
    lxc.cgroup2.devices.allow = c *:* m
    lxc.cgroup2.devices.allow = b *:* m
    lxc.cgroup2.devices.allow = c 1:3 rwm
    lxc.cgroup2.devices.allow = c 1:5 rwm
    lxc.cgroup2.devices.allow = c 1:7 rwm
    lxc.cgroup2.devices.allow = c 1:8 rwm
    lxc.cgroup2.devices.allow = c 1:9 rwm
    lxc.cgroup2.devices.allow = c 5:0 rwm
    lxc.cgroup2.devices.allow = c 5:1 rwm
    lxc.cgroup2.devices.allow = c 5:2 rwm
    lxc.cgroup2.devices.allow = c 136:* rwm
    lxc.cgroup.memory.limit_in_bytes = 536870912
    lxc.cgroup.cpu.cfs_period_us = 100000
    lxc.cgroup.cpu.cfs_quota_us = 200000
    lxc.cgroup.pids.max = 4096
    lxc.cgroup2.memory.max = 536870912
    lxc.cgroup2.cpu.max = 200000 100000
    lxc.cgroup2.pids.max = 4096
    lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed
    lxc.mount.entry = /var/lib/lxcfs/proc/cpuinfo proc/cpuinfo none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/diskstats proc/diskstats none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/loadavg proc/loadavg none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/meminfo proc/meminfo none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/stat proc/stat none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/swaps proc/swaps none bind,optional 0 0
    lxc.mount.entry = /var/lib/lxcfs/proc/uptime proc/uptime none bind,optional 0 0
    lxc.mount.entry = /state/lxc/0123456789abcdef/seed var/lib/cloud/seed/nocloud none bind,ro,nosuid,nodev,noexec,create=dir 0 0
    lxc.pty.max = 1024
    lxc.tty.max = 1
    lxc.environment = container_ttys=pts/1
    lxc.console.logfile = /state/lxc/0123456789abcdef/console/log
    lxc.console.size = 1048576
    lxc.console.rotate = 1
    lxc.net.0.type = empty
    lxc.net.0.flags = up
    lxc.hook.start-host = /bin/sh /state/lxc/.tools/plug-cards /state/lxc/0123456789abcdef/cards /sys/fs/cgroup/strata/0123456789abcdef
    "
  `);
});

test("without AppArmor and seccomp list", () => {
  const { seccompProfile: _, ...rest } = place;
  const text = lxcConfig(guest, {
    ...rest,
    apparmorProfile: "unconfined",
    lxcfs: false,
    maxOpenFiles: 20_000,
  });
  expect(text).toContain("lxc.apparmor.profile = unconfined\n");
  expect(text).toContain("lxc.prlimit.nofile = 1024:20000\n");
  expect(text).not.toMatch(/seccomp|lxcfs/);
});

test("virtual machines and disks are Unsupported", () => {
  const disk = { type: "disk", path: "/x", format: "raw" } as const;
  for (const other of [
    { ...guest, type: "vm" as const },
    { ...guest, root: disk },
  ]) {
    expect(() => checkGuest(other)).toThrow(expect.objectContaining({ code: "Unsupported" }));
  }
});

test("no value adds a line or an entry of its own, whatever it holds", () => {
  const lines = (text: string) => text.split("\n").length;
  const normal = lines(lxcConfig(guest, place));
  fc.assert(
    fc.property(fc.constantFrom("hostname", "path"), hostile, (name, value) => {
      const changed: GuestSpec =
        name === "hostname"
          ? { ...guest, hostname: value }
          : { ...guest, root: { type: "tree", path: value, idBase: 1_000_000, idCount: 65_536 } };
      try {
        expect(lines(lxcConfig(changed, place))).toBe(normal);
        expect(value).not.toMatch(/\s/);
      } catch (error) {
        expect(error).toMatchObject({ code: "Invalid" });
      }
    }),
    { numRuns: 100 },
  );
});

test("no card's value adds a line or a word to a text for ip", () => {
  const shape = (spec: GuestSpec) => {
    checkGuest(spec);
    const nic = spec.nics[0] as GuestNic;
    const texts = cardTexts(nic, { first: true, mark: "m", guestNetns: "/n" });
    return Object.values(texts).map((text) => text.split(/\s/).length);
  };
  const normal = shape(guest);
  const field = fc.constantFrom(
    ...(["name", "macAddress", "ipAddress", "gateway", "netns", "bridge", "port"] as const),
    ...(["address", "gateway"] as const).map((name) => `ipv6.${name}` as const),
  );
  fc.assert(
    fc.property(field, hostile, (name, value) => {
      const [nic] = guest.nics;
      if (!nic?.ipv6) return;
      const [first, second] = name.split(".");
      const next = second
        ? { ...nic, ipv6: { ...nic.ipv6, [second]: value } }
        : { ...nic, [first ?? ""]: value };
      try {
        expect(shape({ ...guest, nics: [next] })).toEqual(normal);
        expect(value).not.toMatch(/\s/);
      } catch (error) {
        expect(error).toMatchObject({ code: "Invalid" });
      }
    }),
    { numRuns: 300 },
  );
});

test.each([
  ["uid", { uid: "../../etc" as Uid }],
  ["hostname", { hostname: "-web" }],
  ["cpus", { cpus: Number.NaN }],
  ["memoryMib", { memoryMib: 1.5 }],
  ["maxProcesses", { maxProcesses: 0 }],
  ["nics' ports", { nics: [...guest.nics, { ...(guest.nics[0] as GuestNic), name: "eth1" }] }],
  ["nics' names", { nics: [...guest.nics, { ...(guest.nics[0] as GuestNic), port: "p2" }] }],
  ["root.idBase", { root: { type: "tree", path: "/x", idBase: 0, idCount: 65_536 } as const }],
  ["root.idCount", { root: { type: "tree", path: "/x", idBase: 1_000_000, idCount: 10 } as const }],
])("says that %s is wrong", (name, change) => {
  expect(() => checkGuest({ ...guest, ...change })).toThrow(
    expect.objectContaining({ code: "Invalid", message: expect.stringContaining(name) }),
  );
});
