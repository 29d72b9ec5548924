import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { changedLimits, checkGuest, containerOptions, limitsOf, recipeOf } from "./container-spec.ts";
import { dockerConfigSchema } from "./docker-config.ts";
import type { DockerGuest } from "./guest-record.ts";

const digest = `sha256:${"ab".repeat(32)}`;
const guest: DockerGuest = {
  uid: "0123456789abcdef" as Uid,
  title: "shop/web",
  hostname: "web",
  type: "container",
  cpus: 2,
  memoryMib: 256,
  maxProcesses: 100,
  root: { type: "image", digest, path: "/images/x/tree", idBase: 1_000_000, idCount: 65_536 },
  nics: [
    {
      name: "eth0",
      macAddress: "02:00:00:00:00:01",
      ipAddress: "10.0.0.2",
      prefixLength: 24,
      gateway: "10.0.0.1",
      mtu: 1450,
      netns: "/run/netns/n",
      bridge: "br0",
      port: "g-1",
    },
  ],
  seed: { metaData: "", userData: "", networkConfig: "" },
  config: dockerConfigSchema.parse({
    command: ["server", "--port", "80"],
    environment: { MODE: "production" },
    workingDirectory: "/srv",
    user: "www:www",
    volumes: [{ name: "data", path: "/var/lib/data" }],
    healthCheck: { command: ["probe"], intervalSeconds: 3, timeoutSeconds: 2, retries: 4 },
  }),
};
const place = {
  namespace: "strata",
  handleVersion: 1,
  record: { path: (name: string) => `/state/docker/x/${name}` },
  busybox: "/bin/busybox",
  hostCpus: 8,
};

test("an application's container, in the Engine's words", () => {
  const options = containerOptions(guest, place);
  expect(options).toMatchObject({
    Image: `strata.local/strata:${"ab".repeat(32)}`,
    Hostname: "web",
    Cmd: ["server", "--port", "80"],
    Env: ["MODE=production"],
    WorkingDir: "/srv",
    User: "www:www",
    Tty: false,
    OpenStdin: false,
    StopSignal: "SIGTERM",
    Labels: {
      "strata.namespace": "strata",
      "strata.uid": "0123456789abcdef",
      "strata.version": "1",
      "strata.image": digest,
    },
    Healthcheck: { Test: ["CMD", "probe"], Interval: 3e9, Timeout: 2e9, Retries: 4 },
  });
  expect(options.Entrypoint?.slice(0, 3)).toEqual(["/.strata/busybox", "sh", "-c"]);
  const { Mounts, ...host } = options.HostConfig ?? {};
  expect(host).toEqual({
    NanoCpus: 2e9,
    Memory: 256 * 1024 ** 2,
    MemorySwap: 256 * 1024 ** 2,
    PidsLimit: 100,
    NetworkMode: "none",
    RestartPolicy: { Name: "no" },
    CapDrop: ["NET_RAW"],
    SecurityOpt: ["no-new-privileges"],
    IpcMode: "private",
    LogConfig: { Type: "json-file", Config: { "max-size": "1m", "max-file": "2" } },
  });
  expect(
    Mounts?.map(({ Type, Source, Target, ReadOnly }) => [Type, Source, Target, ReadOnly === true]),
  ).toEqual([
    ["bind", "/bin/busybox", "/.strata/busybox", true],
    ["bind", "/state/docker/x/gate", "/.strata/gate", true],
    ["bind", "/state/docker/x/hosts", "/etc/hosts", true],
    ["bind", "/state/docker/x/hostname", "/etc/hostname", true],
    ["bind", "/state/docker/x/resolv.conf", "/etc/resolv.conf", true],
    ["volume", "strata-0123456789abcdef-data", "/var/lib/data", false],
  ]);
});

test("without an application the image's init runs, with a console and a seed", () => {
  const options = containerOptions({ ...guest, config: dockerConfigSchema.parse({}) }, place);
  expect(options).toMatchObject({ Cmd: ["/sbin/init"], Tty: true, OpenStdin: true, User: "" });
  expect(options.Healthcheck).toBeUndefined();
  expect(options.HostConfig?.Mounts?.map(({ Target }) => Target)).toContain("/var/lib/cloud/seed/nocloud");
});

test("the Engine is not asked for more processors than there are", () => {
  expect(limitsOf({ ...guest, cpus: 64 }, 8).NanoCpus).toBe(8e9);
});

test("only limits that changed are set, those of memory together", () => {
  const limits = limitsOf(guest, 8);
  const has = (found: object) => changedLimits(limits, { HostConfig: found as never });
  expect(has(limits)).toEqual({});
  expect(has({ ...limits, PidsLimit: 5 })).toEqual({ PidsLimit: 100 });
  expect(has({ ...limits, Memory: 1 })).toEqual({ Memory: limits.Memory, MemorySwap: limits.MemorySwap });
});

test("what a container is made from decides whether it can be used again", () => {
  const recipe = recipeOf(guest);
  expect(recipeOf({ ...guest, hostname: "other", memoryMib: 1024, nics: [] })).toBe(recipe);
  expect(recipeOf({ ...guest, config: { ...guest.config, command: ["other"] } })).not.toBe(recipe);
});

test.each<[string, object]>([
  ["a machine", { type: "vm" }],
  ["a tree", { root: { type: "tree", path: "/t", idBase: 1, idCount: 1 } }],
])("%s is not for this driver", (_name, change) => {
  expect(() => checkGuest({ ...guest, ...change } as DockerGuest)).toThrow(
    expect.objectContaining({ code: "Unsupported" }),
  );
});

test.each<[string, object]>([
  ["a host name with a line break", { hostname: "a\nb" }],
  ["a digest that is none", { root: { ...guest.root, digest: "latest" } }],
  ["a card whose name is a command", { nics: [{ ...guest.nics[0], name: "eth0 up" }] }],
  ["a gateway that is no address", { nics: [{ ...guest.nics[0], gateway: "10.0.0.1; x" }] }],
  [
    "an IPv6 address with a zone",
    { nics: [{ ...guest.nics[0], ipv6: { address: "fe80::1%eth0", prefixLength: 64, gateway: "fe80::1" } }] },
  ],
])("%s is refused", (_name, change) => {
  expect(() => checkGuest({ ...guest, ...change } as DockerGuest)).toThrow(
    expect.objectContaining({ code: "Invalid" }),
  );
});
