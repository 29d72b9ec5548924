/**
 * A machine for simulated agents: images, disks and networks without a kernel. It outlives its agents, like a machine
 * outlives the processes on it, and keeps accounts of what is on it.
 */

import { createHash, hash } from "node:crypto";
import { Readable } from "node:stream";
import type { NetworkChecks, Outcome } from "../src/agent/health/network-checks.ts";
import type { Clock } from "../src/core/clock.ts";
import { StrataError } from "../src/core/errors.ts";
import { canonicalJson, type Json } from "../src/core/json.ts";
import { FakeWorld, type FakeWorldOptions } from "../src/drivers/fake/fake-world.ts";
import type { DiskPart } from "../src/host/disks/disk-parts.ts";
import type { DataDiskRequest, Disks } from "../src/host/disks/disks.ts";
import type { ImageStore, StoredImage } from "../src/host/images/image-store.ts";
import type {
  CardPolicy,
  NetworkAttachment,
  NetworkPolicy,
  NetworkRequest,
  Networks,
} from "../src/host/networks/networks.ts";
import type { PoolFacts, Pools } from "../src/host/pools/pools.ts";
import type { RootEntry } from "../src/kinds/drift.ts";
import type { ImageSource } from "../src/kinds/image.ts";

export interface FakeNetwork {
  request: NetworkRequest;
  /** What is in force. */
  policy: NetworkPolicy;
  hostAddress: string;
}

export function fakeNetwork(change: Partial<NetworkRequest> = {}): FakeNetwork {
  const request = {
    uid: "",
    cidr: "",
    domain: "",
    hostRoute: false,
    internet: true,
    subnets: [],
    peerings: [],
  };
  return { request: { ...request, ...change }, policy: emptyPolicy, hostAddress: "" };
}

/** What each simulated image has in it. */
const fakeTree: ReadonlyMap<string, RootEntry> = new Map(
  (["", "etc", "etc/motd"] as const).map((path) => {
    const file = path === "etc/motd" ? { sizeBytes: 2, sha256: hash("sha256", "hi") } : {};
    const type = path === "etc/motd" ? "file" : "directory";
    return [path, { path, type, mode: type === "file" ? 0o644 : 0o755, uid: 0, gid: 0, ...file }];
  }),
);

const emptyPolicy: NetworkPolicy = { cards: [], groups: [], publishedPorts: [], addresses: [] };

export class FakeHost {
  readonly name: string;
  readonly clock: Clock;
  readonly world: FakeWorld;
  readonly storedImages = new Map<string, StoredImage>();
  /** By the uids of images. */
  readonly buildLogs = new Map<string, string>();
  /** Volume uid to the digest it was made from. */
  readonly roots = new Map<string, string>();
  /** Volume uid to the times that it was made anew. */
  readonly rootGenerations = new Map<string, number>();
  /** Volume uid to what is there of it. */
  readonly data = new Map<
    string,
    { sizeMib: number; use: "free" | "lent" | "mounted"; pool?: string | undefined }
  >();
  /** Uid of a snapshot of several disks to those. */
  readonly parts = new Map<string, Map<string, { sizeMib: number }>>();
  /** Disks that were put back to a snapshot, in that order. */
  readonly restored: { from: string; uid: string }[] = [];
  readonly bridges = new Map<string, FakeNetwork>();
  /** Uids of networks that broke and have not been given a policy since. */
  readonly broken = new Set<string>();
  /** Directories that can be storage pools. */
  readonly directories = new Map<string, PoolFacts>();
  /** Volumes whose writers wait. */
  readonly heldData = new Set<string>();
  /** Volumes whose place answers nobody. */
  readonly silentData = new Set<string>();
  /** Where volumes are. */
  readonly space = { capacityBytes: 1e12, freeBytes: 9e11 };
  /** How long making an image takes. */
  makeMs = 0;
  /** Sources that cannot be made, by their canonical JSON. */
  readonly badSources = new Map<string, StrataError>();
  builds = 0;
  /** How long a policy takes to come into force. */
  policyMs = 0;
  /** How many of the next policies fail. */
  badPolicies = 0;
  /** Called after each policy that comes into force. */
  onPolicy: (network: string, policy: NetworkPolicy) => void = () => {};
  #uplinks = 0;
  #networkListeners = new Set<(uid: string) => void>();

  constructor(name: string, clock: Clock, options: Omit<FakeWorldOptions, "clock"> = {}) {
    this.name = name;
    this.clock = clock;
    this.world = new FakeWorld({ clock, ...options });
  }

  /** Guests are as healthy as this says. */
  health: () => Outcome = () => ({ healthy: true });
  readonly checks: NetworkChecks = { tcp: async () => this.health(), http: async () => this.health() };

  readonly images: ImageStore = {
    recover: async () => {},
    list: async () => [...this.storedImages.values()],
    get: async (digest) => this.storedImages.get(digest),
    make: async (source, { signal, onProgress }) => {
      const recipe = canonicalJson(source as unknown as Json);
      const bad = this.badSources.get(recipe);
      if (bad) throw bad;
      const image = imageOf(source);
      if (this.storedImages.has(image.digest)) return image;
      onProgress({ step: "building", fraction: 0.5 });
      if (this.makeMs > 0) await this.clock.sleep(this.makeMs, signal);
      signal.throwIfAborted();
      this.builds++;
      this.storedImages.set(image.digest, image);
      return image;
    },
    buildLog: async (name) => {
      const text = this.buildLogs.get(name);
      return text === undefined ? undefined : Readable.from([Buffer.from(text)]);
    },
    removeBuildLog: async (name) => void this.buildLogs.delete(name),
    containerTree: async () => ({ path: "/", idBase: 0, idCount: 65_536 }),
    vmDisk: async () => ({ path: "/", format: "qcow2", sizeMib: 1 }),
    entries: async () => fakeTree,
    export: async (digest, format, use) =>
      use(
        (async function* () {
          yield Buffer.from(`${format} of ${digest}`);
        })(),
      ),
    remove: async (digest) => {
      this.storedImages.delete(digest);
    },
  };

  /** Copies of disks take no time. */
  sharesBlocks = true;

  readonly disks: Disks = {
    ensureRoot: async ({ uid, imageDigest, source, generation = 0 }) => {
      if (source && !this.parts.get(source.snapshot)?.has(source.disk)) {
        throw new StrataError("NotFound", `the simulated snapshot ${source.snapshot} is not here`);
      }
      if (!this.storedImages.has(imageDigest)) {
        throw new StrataError("NotFound", `the image ${imageDigest} is not on host ${this.name}`);
      }
      if (!this.roots.has(uid) || generation > (this.rootGenerations.get(uid) ?? 0)) {
        this.roots.set(uid, imageDigest);
      }
      this.rootGenerations.set(uid, generation);
      const root = { type: "tree", path: `/volumes/${uid}`, idBase: 100_000, idCount: 65_536 } as const;
      return generation > 0 ? { ...root, generation } : root;
    },
    lendData: async (request) => this.#ensureData(request, "lent"),
    mountData: async (request) => this.#ensureData(request, "mounted"),
    copyData: async (from, to, _signal, pool) => {
      const source =
        typeof from === "string" ? this.data.get(from) : this.parts.get(from.snapshot)?.get(from.disk);
      if (!source)
        throw new StrataError("NotFound", `the simulated volume ${JSON.stringify(from)} is not here`);
      this.data.set(to, { sizeMib: source.sizeMib, use: "free", pool: pool?.path });
      return { frozen: "use" in source && source.use === "mounted", stillMs: 0 };
    },
    copyTogether: async (disks, to) => {
      const parts = disks.map((uid) => {
        const content = this.data.get(uid)?.sizeMib ?? (this.roots.has(uid) ? 0 : undefined);
        if (content === undefined) throw new StrataError("NotFound", `the simulated disk ${uid} is not here`);
        return [uid, { sizeMib: content }] as const;
      });
      this.parts.set(to, new Map(parts));
      return { frozen: disks.some((uid) => this.data.get(uid)?.use === "mounted"), stillMs: 0 };
    },
    planCopies: async (request) =>
      (request.volume === undefined ? request.disks : [request.volume]).map((uid) => {
        if (!this.data.has(uid) && !this.roots.has(uid)) {
          throw new StrataError("NotFound", `the simulated disk ${uid} is not here`);
        }
        return { from: `/volumes/${uid}`, to: `/copies/${uid}`, shares: this.sharesBlocks };
      }),
    memoryFile: async (snapshot) => `/volumes/${snapshot}/memory`,
    copyPlanned: async () => {},
    finishCopies: async (request, to, signal) => {
      if (request.volume === undefined) await this.disks.copyTogether(request.disks, to, signal);
      else await this.disks.copyData(request.volume, to, signal);
    },
    restoreTogether: async (from, disks) => {
      for (const uid of disks) {
        if (!this.parts.get(from)?.has(uid) && !this.data.has(from)) {
          throw new StrataError("NotFound", `the simulated snapshot ${from} is not here`);
        }
        this.restored.push({ from, uid });
      }
    },
    room: async (uid) => {
      if (this.silentData.has(uid)) return new Promise(() => {});
      if (!this.data.has(uid) && !this.roots.has(uid)) {
        throw new StrataError("NotFound", `the simulated volume ${uid} is not here`);
      }
      return {
        place: 1,
        capacityBytes: this.space.capacityBytes,
        freeBytes: this.space.freeBytes,
        mayTakeBytes: 2 ** 40,
      };
    },
    hold: async (uid) => {
      this.heldData.add(uid);
    },
    letGo: async (uid) => {
      this.heldData.delete(uid);
    },
    held: async () => [...this.heldData],
    dataFile: async (of) => {
      const uid = typeof of === "string" ? of : of.snapshot;
      if (!this.data.has(uid)) throw new StrataError("NotFound", `the simulated disk ${uid} is not here`);
      return `/volumes/${uid}/data.raw`;
    },
    fillData: async ({ uid, sizeMib }, fill) => {
      await fill(`/volumes/${uid}/data.raw`);
      this.data.set(uid, { sizeMib, use: "free" });
    },
    readRoot: async (part, _digest, use) => use(this.#bytesOf(part)),
    readRootDisk: async (part, _digest, use) => use(this.#bytesOf(part)),
    recover: async () => {},
    releaseData: async (uid) => {
      this.heldData.delete(uid);
      const data = this.data.get(uid);
      if (data) data.use = "free";
    },
    remove: async (uid, _signal, lost) => {
      const pool = this.data.get(uid)?.pool;
      if (pool !== undefined && lost?.has(pool)) lost.left(`${pool}/${uid}.raw`);
      else if (pool !== undefined && !this.directories.has(pool)) {
        throw new StrataError("Unavailable", "the simulated storage pool is not there");
      }
      this.roots.delete(uid);
      this.heldData.delete(uid);
      this.rootGenerations.delete(uid);
      this.data.delete(uid);
      this.parts.delete(uid);
      this.world.memories.delete(`/volumes/${uid}/memory`);
    },
    list: async () => [...this.roots.keys(), ...this.data.keys(), ...this.parts.keys()],
    usedBytes: async () => 0,
    capacity: async () => ({ totalMib: 1_000_000, freeMib: 900_000 }),
  };

  readonly pools: Pools = {
    open: async ({ path }) => {
      const facts = this.directories.get(path);
      if (facts) return facts;
      throw new StrataError("Invalid", `${path} does not exist; make the directory first`);
    },
    usage: async () => {
      const { capacityBytes, freeBytes } = this.space;
      return { capacityBytes, freeBytes, usedBytes: capacityBytes - freeBytes, allocatedBytes: 0 };
    },
    close: async () => {},
  };

  readonly networks: Networks = {
    ensure: async (request) => {
      const known = this.bridges.get(request.uid);
      if (known) known.request = request;
      else {
        this.#uplinks++;
        const hostAddress = `100.64.${this.#uplinks >> 7}.${(this.#uplinks << 1) & 255}`;
        this.bridges.set(request.uid, { request, policy: emptyPolicy, hostAddress });
      }
      return attachmentOf(request, this.bridges.get(request.uid)?.hostAddress ?? "");
    },
    apply: async (uid, policy) => {
      const network = this.bridges.get(uid);
      if (!network) throw new StrataError("NotFound", `there is no network ${uid} on host ${this.name}`);
      if (this.badPolicies-- > 0)
        throw new StrataError("Internal", "the simulated firewall was told to fail");
      if (this.policyMs > 0) await this.clock.sleep(this.policyMs);
      if (this.bridges.get(uid) !== network) {
        throw new StrataError("NotFound", `the network ${uid} on host ${this.name} is gone meanwhile`);
      }
      this.broken.delete(uid);
      network.policy = structuredClone(policy) as NetworkPolicy;
      this.onPolicy(uid, policy);
    },
    remove: async (uid) => {
      this.bridges.delete(uid);
    },
    list: async () => [...this.bridges.keys()],
    events: (signal) => this.#networkEvents(signal),
  };

  async *#bytesOf({ snapshot, disk }: DiskPart): AsyncGenerator<Uint8Array> {
    if (!this.parts.get(snapshot)?.has(disk)) {
      throw new StrataError("NotFound", `the simulated snapshot ${snapshot} is not here`);
    }
    yield Buffer.from(`the root ${disk}`);
  }

  #ensureData({ uid, sizeMib, pool }: DataDiskRequest, use: "lent" | "mounted"): string {
    if (sizeMib < (this.data.get(uid)?.sizeMib ?? 0)) {
      throw new StrataError("Invalid", "the simulated volume cannot shrink");
    }
    this.data.set(uid, { sizeMib, use, pool: pool?.path });
    return `/volumes/${uid}/${use === "lent" ? "data.raw" : "tree"}`;
  }

  /** All cards in force, with the uid of the network of each. */
  cards(): { network: string; card: CardPolicy }[] {
    return [...this.bridges].flatMap(([network, { policy }]) =>
      policy.cards.map((card) => ({ network, card })),
    );
  }

  /** As if somebody deleted the namespace. */
  breakNetwork(uid: string): void {
    this.bridges.delete(uid);
    this.broken.add(uid);
    for (const listener of this.#networkListeners) listener(uid);
  }

  async *#networkEvents(signal: AbortSignal): AsyncGenerator<{ uid: string }> {
    const pending: string[] = [];
    let wake = () => {};
    const listener = (uid: string) => {
      pending.push(uid);
      wake();
    };
    this.#networkListeners.add(listener);
    const onAbort = () => wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted) {
        const uid = pending.shift();
        if (uid !== undefined) yield { uid };
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (signal.aborted) resolve();
          });
        }
      }
    } finally {
      this.#networkListeners.delete(listener);
    }
  }
}

function attachmentOf(request: NetworkRequest, hostAddress: string): NetworkAttachment {
  return {
    netns: `/run/netns/${request.uid}`,
    mtu: request.mtu ?? 1500,
    hostAddress,
    subnets: request.subnets.map((subnet) => ({
      name: subnet.name,
      bridge: `br${subnet.index}`,
      prefixLength: Number(subnet.cidr.split("/")[1]),
      gateway: subnet.gateway,
      ...(subnet.ipv6Gateway === undefined
        ? {}
        : { ipv6: { prefixLength: 64, gateway: subnet.ipv6Gateway } }),
    })),
  };
}

function imageOf(source: ImageSource): StoredImage {
  const hash = createHash("sha256")
    .update(canonicalJson(source as unknown as Json))
    .digest("hex");
  return {
    digest: `sha256:${hash}`,
    sizeBytes: 1_000_000,
    os: "Simulated",
    types: ["vm", "container"],
    limitation: "",
    remark: "",
  };
}
