import { describe, expect, it } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { parseRange } from "../../core/ip-range.ts";
import type { CgroupLayout, Cgroups } from "../cgroups.ts";
import { parsePackages, readPackages } from "../packages.ts";
import { hostCapacity } from "./capacity.ts";
import { cgroupFindings, readCgroups } from "./cgroup-findings.ts";
import { builderFindings, dockerFindings } from "./docker.ts";
import { findingAreas } from "./finding.ts";
import { type KernelFacts, kernelFindings, securityFindings } from "./kernel.ts";
import { memoryFindings, parseMemory } from "./memory.ts";
import { findPoolConflicts, type NetworkFacts, networkFindings, parseSteps } from "./network.ts";
import { packageFindings, parseInstalled } from "./packages.ts";
import { runProbes } from "./run-probes.ts";
import { fileSystemOf, overlappingIds, parseSubIds, type StorageFacts, storageFindings } from "./storage.ts";
import { timeFindings } from "./time-sync.ts";

const range = (text: string) => parseRange(text)?.range ?? { family: 4 as const, base: 0n, prefixLength: 0 };

describe("memory", () => {
  const text =
    "MemTotal:       24684084 kB\nMemFree:  1 kB\nMemAvailable:   23669236 kB\nSwapTotal:       0 kB\n";

  it("is read in MiB", () => {
    expect(parseMemory(text)).toEqual({ totalMib: 24105, availableMib: 23114, swapMib: 0 });
    expect(parseMemory("")).toEqual({ totalMib: 0, availableMib: 0, swapMib: 0 });
  });

  it.each([
    [{ totalMib: 24105, availableMib: 23114, swapMib: 0 }, "ok"],
    [{ totalMib: 1024, availableMib: 800, swapMib: 0 }, "warning"],
    [{ totalMib: 24105, availableMib: 100, swapMib: 0 }, "problem"],
  ])("%j is %s", (memory, level) => expect(memoryFindings(memory)[0]?.level).toBe(level));
});

describe("kernel", () => {
  const debian: KernelFacts = {
    release: "6.1.0-18-amd64",
    operatingSystem: "Debian GNU/Linux 12 (bookworm)",
    maxUserNamespaces: 63000,
    unprivilegedClone: true,
    apparmorRestricts: false,
    maxInotifyInstances: 128,
    apparmor: true,
    selinux: false,
  };
  const levels = (change: Partial<KernelFacts>) =>
    kernelFindings({ ...debian, ...change }).map(({ level }) => level);

  it("is judged by its version and its user namespaces", () => {
    expect(levels({})).toEqual(["ok", "ok"]);
    expect(levels({ release: "5.7.0" })).toEqual(["ok", "ok"]);
    expect(levels({ release: "5.4.0-150-generic" })).toEqual(["problem", "ok"]);
    expect(levels({ release: "4.19.0" })).toEqual(["problem", "ok"]);
    expect(levels({ maxUserNamespaces: 0 })).toEqual(["ok", "problem"]);
    expect(levels({ maxUserNamespaces: undefined })).toEqual(["ok", "problem"]);
    expect(levels({ maxUserNamespaces: 100 })).toEqual(["ok", "warning"]);
    expect(levels({ unprivilegedClone: false, apparmorRestricts: true })).toEqual(["ok", "ok"]);
  });

  it("is asked for its security modules", () => {
    expect(securityFindings(debian)[0]).toMatchObject({ level: "ok", title: "AppArmor is on" });
    expect(securityFindings({ ...debian, apparmor: false, selinux: true })[0]).toMatchObject({ level: "ok" });
    expect(securityFindings({ ...debian, apparmor: false })[0]).toMatchObject({ level: "info" });
  });
});

describe("control groups", () => {
  it.each<[CgroupLayout | undefined, string, string]>([
    ["v2", "", "ok"],
    ["hybrid", "", "ok"],
    ["v1", "", "info"],
    ["v2", "read-only file system", "problem"],
    [undefined, "nothing is mounted", "problem"],
  ])("%s with failure %j are %s", (layout, failure, level) => {
    expect(cgroupFindings({ layout, failure })[0]?.level).toBe(level);
  });

  it("are tried beside the daemon's own, and left as they were", async () => {
    const calls: string[] = [];
    const cgroups = {
      layout: "v2",
      ensure: async (group: string) => void calls.push(`ensure ${group}`),
      remove: async (group: string) => void calls.push(`remove ${group}`),
    } as Partial<Cgroups> as Cgroups;
    expect(await readCgroups(async () => cgroups, "strata")).toEqual({ layout: "v2", failure: "" });
    const group = `strata-doctor-${process.pid}`;
    expect(calls).toEqual([`ensure ${group}/guest`, `remove ${group}`]);
    const broken = async () => {
      throw new StrataError("Unavailable", "no cgroups are mounted");
    };
    expect(await readCgroups(broken, "strata")).toMatchObject({ layout: undefined });
  });
});

describe("storage", () => {
  const good: StorageFacts = {
    stateDir: "/var/lib/strata",
    fileSystem: "ext4",
    totalMib: 100_000,
    freeMib: 50_000,
    loop: true,
    overlay: { works: true, reason: "" },
    claimedIds: [],
  };
  const levels = (change: Partial<StorageFacts>) =>
    storageFindings({ ...good, ...change }).map(({ level }) => level);

  it("is judged by space, loop devices, overlays and ids", () => {
    expect(levels({})).toEqual(["ok", "ok"]);
    expect(levels({ freeMib: 10_000 })).toEqual(["warning", "ok"]);
    expect(levels({ freeMib: 1_000 })).toEqual(["problem", "ok"]);
    expect(levels({ loop: false })).toEqual(["ok", "problem"]);
    expect(levels({ overlay: { works: false, reason: "unknown filesystem type" } })).toEqual([
      "ok",
      "problem",
    ]);
    expect(levels({ overlay: undefined })).toEqual(["ok", "info"]);
    expect(levels({ claimedIds: [{ owner: "ada", first: 1, count: 2 }] })).toEqual(["ok", "ok", "warning"]);
  });

  it("finds ids that are promised twice", () => {
    const ranges = parseSubIds("# comment\nada:100000:65536\nroot:1900000000:65536\nbroken:x:1\n");
    expect(ranges.map(({ owner }) => owner)).toEqual(["ada", "root"]);
    expect(overlappingIds(ranges, 1_900_065_535, 10).map(({ owner }) => owner)).toEqual(["root"]);
    expect(overlappingIds(ranges, 1_900_065_536, 10)).toEqual([]);
    expect(overlappingIds(ranges, 165_535, 1).map(({ owner }) => owner)).toEqual(["ada"]);
  });

  it("finds the file system of a directory: the innermost mount, and of two on one point the later", () => {
    const mountinfo = `1 0 254:0 / / rw - ext4 /dev/vda rw
2 1 0:20 / /var rw shared:1 - xfs /dev/vdb rw
3 1 0:21 / /var rw - btrfs /dev/vdc rw
4 1 0:22 / /var/lib/with\\040space rw - tmpfs none rw
`;
    expect(fileSystemOf(mountinfo, "/var/lib/strata")).toBe("btrfs");
    expect(fileSystemOf(mountinfo, "/variable")).toBe("ext4");
    expect(fileSystemOf(mountinfo, "/var/lib/with space/x")).toBe("tmpfs");
    expect(fileSystemOf("", "/")).toBe("unknown");
  });
});

describe("network", () => {
  const works = parseSteps(
    "namespace:\nveth:\nbridge:\naddresses:\nroutes:\nisolated ports:\ntap:\nrules of a network:\nrules of the host:\n",
  );
  const good: NetworkFacts = {
    steps: works,
    forwarding: true,
    droppers: [],
    pool: "10.77.0.0/16",
    conflicts: [],
    resolvFile: "/etc/resolv.conf",
  };
  const levels = (change: Partial<NetworkFacts>) =>
    networkFindings({ ...good, ...change }).map(({ level }) => level);

  it("is judged by what was tried", () => {
    expect(new Set(Object.values(works))).toEqual(new Set([""]));
    expect(levels({})).toEqual(["ok", "ok"]);
    expect(levels({ steps: undefined, forwarding: false })).toEqual(["info", "ok"]);
    expect(levels({ droppers: ["ip filter FORWARD"] })).toEqual(["ok", "info"]);
    expect(levels({ conflicts: [{ range: "10.77.3.0/24", device: "eth1" }] })).toEqual([
      "ok",
      "ok",
      "warning",
    ]);
    expect(levels({ resolvFile: undefined })).toEqual(["ok", "ok", "warning"]);
  });

  it("names the part that fails, and what guests lose by it", () => {
    const tap = { ...works, tap: "failed: open: No such device" };
    const [finding] = networkFindings({ ...good, steps: tap });
    expect(finding).toMatchObject({ level: "problem", title: "a network cannot be made: tap" });
    expect(finding?.meaning).toContain("containers can");
    const nothing = parseSteps("");
    expect(nothing["rules of the host"]).toBe("did not run");
    expect(networkFindings({ ...good, steps: nothing })[0]?.meaning).toContain("No guest");
    expect(parseSteps("veth: failed: RTNETLINK answers: Operation not supported ").veth).toBe(
      "failed: RTNETLINK answers: Operation not supported",
    );
  });

  it("finds others in the pool, and neither itself nor the default route", () => {
    const routes = [
      { device: "eth0", range: range("0.0.0.0/0"), gateway: 1 },
      { device: "sabcd1", range: range("10.77.1.0/24"), gateway: 1 },
      { device: "tun0", range: range("10.0.0.0/8"), gateway: 0 },
      { device: "eth1", range: range("10.77.9.0/24"), gateway: 0 },
      { device: "eth2", range: range("10.78.0.0/16"), gateway: 0 },
    ];
    const found = findPoolConflicts(routes, range("10.77.0.0/16"), "sabcd");
    expect(found.map(({ device }) => device)).toEqual(["tun0", "eth1"]);
  });
});

describe("packages", () => {
  const table =
    "# comment\nlxc  all  system containers\nqemu-system-arm arm64 machines\nqemu-system-x86 amd64 machines\n";

  it("are those of the machine's architecture", async () => {
    expect(parsePackages(table, "amd64")).toEqual([
      { name: "lxc", purpose: "system containers" },
      { name: "qemu-system-x86", purpose: "machines" },
    ]);
    const needed = await readPackages();
    expect(needed.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["nftables", "dnsmasq-base", "lxc"]),
    );
    expect(needed.every(({ purpose }) => purpose.length > 5)).toBe(true);
  });

  it("are missing unless installed, not merely known", () => {
    const needed = parsePackages(table, "amd64");
    const installed = parseInstalled("installed lxc\nconfig-files qemu-system-x86\n");
    const [finding] = packageFindings({ needed, installed });
    expect(finding).toMatchObject({ level: "problem", facts: { "qemu-system-x86": "machines" } });
    expect(finding?.advice).toMatch(/apt-get install qemu-system-x86\.$/);
    installed.add("qemu-system-x86");
    expect(packageFindings({ needed, installed })[0]?.level).toBe("ok");
    expect(packageFindings({ needed, installed: undefined })[0]?.level).toBe("warning");
  });
});

it("the clock is right when something keeps it so", () => {
  expect(timeFindings({ clocksource: "tsc", services: ["chronyd"] })[0]?.level).toBe("ok");
  expect(timeFindings({ clocksource: "", services: [] })[0]?.level).toBe("info");
});

it("a machine's capacity is that of its disk, memory and processors", async () => {
  const capacity = await hostCapacity("/");
  expect(Object.values(capacity).every((value) => Number.isInteger(value) && value > 0)).toBe(true);
});

it("every area is looked at, whatever fails, and says what it means", async () => {
  const failing = async () => {
    throw new StrataError("Unavailable", "not here");
  };
  const findings = await runProbes({
    config: {
      namespace: "doctor-test",
      stateDir: "/nonexistent/strata",
      runDir: "/nonexistent/run",
      imageDir: "/nonexistent/images",
      networkPool: "10.77.0.0/16",
      idBase: 1_900_000_000,
    },
    openCgroups: failing,
    probeKvm: failing,
    probeDocker: failing,
    signal: AbortSignal.timeout(20_000),
  });
  const areas = findings.map(({ area }) => area);
  expect([...new Set(areas)]).toEqual([...findingAreas]);
  expect(findings.find(({ area }) => area === "cgroups")?.level).toBe("problem");
  for (const finding of findings) {
    expect(finding.meaning).not.toBe("");
    if (finding.level === "problem" || finding.level === "warning") expect(finding.advice).not.toBe("");
    if (finding.level === "ok") expect(finding.advice).toBe("");
  }
});

it("an Engine is a warning only where it is there and does not work", () => {
  const nothing = { version: "", types: [], abilities: [], facts: {} };
  const levels = [
    undefined,
    { available: false, message: "no space left", ...nothing },
    { available: true, message: "", ...nothing, version: "20.10", facts: { seccomp: "yes" } },
  ].map((fingerprint) => dockerFindings(fingerprint).map(({ level, facts }) => ({ level, facts })));
  expect(levels).toEqual([
    [{ level: "info", facts: {} }],
    [{ level: "warning", facts: { reason: "no space left" } }],
    [{ level: "ok", facts: { seccomp: "yes" } }],
  ]);
});

it("Dockerfiles are built by an Engine that works, else by buildah, else what is missing is named", () => {
  const fingerprint = { message: "", version: "", types: [], abilities: [], facts: {} };
  const works = { ...fingerprint, available: true };
  const broken = { ...fingerprint, available: false };
  const both = { buildah: true, slirp4netns: true };
  const none = { buildah: false, slirp4netns: false };
  const found = (...args: Parameters<typeof builderFindings>) =>
    builderFindings(...args).map(({ level, title, advice }) => [level, title, advice]);
  expect(found(works, none)).toEqual([["ok", "the Docker Engine builds Dockerfiles", ""]]);
  expect(found(broken, both)).toEqual([["ok", "buildah builds Dockerfiles", ""]]);
  expect(found(undefined, { ...both, slirp4netns: false })[0]).toEqual([
    "info",
    "nothing that was found can build Dockerfiles",
    "To build Dockerfiles without an Engine: apt-get install slirp4netns.",
  ]);
});
