/** What must hold of groups at all times, and at the end of every hour of their simulation. */
import type { VirtualClock } from "../../src/core/virtual-clock.ts";
import { type Group, groupKind } from "../../src/kinds/group.ts";
import { type Instance, instanceKind } from "../../src/kinds/instance.ts";
import { resourcePrefix } from "../../src/kinds/keys.ts";
import { type ScalingDecision, scalingDecisionKind } from "../../src/kinds/scaling-decision.ts";
import { fromStored } from "../../src/kinds/stored.ts";
import type { Store } from "../../src/store/store.ts";
import type { ModelHosts } from "./model-hosts.ts";

interface Watched {
  store: Store;
  clock: VirtualClock;
  hosts: ModelHosts;
  signal: AbortSignal;
}

/** Demand is told once an hour; what others give back comes in steps. */
const reversalsPerHour = 4;
const changesPerHour = 40;

export class GroupInvariants {
  /** Memory of each host, in MiB. */
  readonly capacity = new Map<string, number>();
  /** Of each group, by name; the hosts have room for all of them. */
  readonly minimums = new Map<string, number>();
  readonly counts = {
    changes: 0,
    mostChangesInAnHour: 0,
    mostReversalsInAnHour: 0,
    hoursShort: 0,
    mostLent: 0,
    mostMembers: 0,
  };
  readonly #watched: Watched;
  /** Promised on each host, by key of the instance. */
  readonly #promised = new Map<string, Map<string, number>>();
  readonly #problems: string[] = [];
  /** Of this hour, by group: 1 for more members, -1 for fewer. */
  readonly #directions = new Map<string, number[]>();
  /** Groups that were below their minimum, or hosts that had room for all, when they were last looked at. */
  #below = new Set<string>();
  #roomy = new Set<string>();

  constructor(watched: Watched) {
    this.#watched = watched;
    void this.#follow(resourcePrefix(instanceKind), (key, value) =>
      this.#sawInstance(key, value as Instance),
    );
    void this.#follow(resourcePrefix(scalingDecisionKind), (_key, value) => {
      if (value) this.#sawDecision(value as ScalingDecision);
    });
  }

  /** At the end of an hour. @throws an Error saying what does not hold. */
  async check(): Promise<void> {
    this.#checkChanges();
    const groups = await this.#groups();
    const below = new Set<string>();
    const wanted = new Map<string, number>();
    for (const group of groups) {
      const { name } = group.metadata;
      const serving = this.#members(group).filter(({ status }) => status.member?.phase === "serving");
      if (serving.length < group.spec.min) {
        below.add(name);
        if (this.#below.has(name)) {
          this.#problems.push(
            `${name} has ${serving.length} members for more than an hour, its minimum is ${group.spec.min}`,
          );
        }
      }
      const host = hostOf(group);
      const wish = Math.max(group.status.wanted, group.spec.min) + group.spec.warm;
      wanted.set(host, (wanted.get(host) ?? 0) + wish * group.spec.template.memoryMib);
    }
    const roomy = new Set(
      [...wanted].flatMap(([host, sum]) => (sum <= (this.capacity.get(host) ?? 0) ? [host] : [])),
    );
    for (const group of groups) this.#checkLending(group, roomy);
    this.#below = below;
    this.#roomy = roomy;
    this.counts.mostMembers = Math.max(this.counts.mostMembers, this.#watched.hosts.instances.size);
    if (this.#problems.length > 0) throw new Error(this.#problems.slice(0, 5).join("; "));
  }

  /** Once faults have stopped for an hour. */
  async checkRest(): Promise<void> {
    const groups = await this.#groups();
    const known = new Set<string>(groups.map(({ metadata }) => metadata.uid));
    for (const { metadata } of this.#watched.hosts.instances.values()) {
      if (!metadata.owner || !known.has(metadata.owner.uid))
        this.#problems.push(`${metadata.name} belongs to nobody`);
    }
    for (const group of groups) {
      const { name } = group.metadata;
      const { state, message, desired } = group.status;
      if (state !== "steady" && state !== "short") this.#problems.push(`${name} is ${state}: ${message}`);
      const members = this.#members(group).filter(({ status }) => status.member?.phase === "serving");
      if (members.length !== desired)
        this.#problems.push(`${name} has ${members.length} of ${desired} members`);
    }
    if (this.#problems.length > 0) throw new Error(this.#problems.slice(0, 5).join("; "));
  }

  #checkLending({ metadata: { name }, status, ...group }: Group, roomy: ReadonlySet<string>): void {
    const host = hostOf({ ...group, metadata: {}, status } as never);
    this.counts.mostLent = Math.max(this.counts.mostLent, status.lent);
    if (!roomy.has(host)) {
      this.counts.hoursShort++;
      return;
    }
    if (!this.#roomy.has(host)) return;
    if (status.lent > 0)
      this.#problems.push(`${name} still lends ${status.lent} although there is room for all`);
    if (status.desired < status.wanted) {
      this.#problems.push(`${name} has ${status.desired} of ${status.wanted} although there is room for all`);
    }
  }

  #checkChanges(): void {
    for (const [name, directions] of this.#directions) {
      const reversals = directions.filter((one, index) => index > 0 && one !== directions[index - 1]).length;
      this.counts.changes += directions.length;
      this.counts.mostChangesInAnHour = Math.max(this.counts.mostChangesInAnHour, directions.length);
      this.counts.mostReversalsInAnHour = Math.max(this.counts.mostReversalsInAnHour, reversals);
      if (reversals > reversalsPerHour)
        this.#problems.push(`${name} turned ${reversals} times within an hour`);
      if (directions.length > changesPerHour) {
        this.#problems.push(`${name} changed ${directions.length} times within an hour`);
      }
    }
    this.#directions.clear();
  }

  #members({ metadata: { uid } }: Group): Instance[] {
    return [...this.#watched.hosts.instances.values()].filter(
      ({ metadata }) => metadata.owner?.uid === uid && metadata.deletedAt === undefined,
    );
  }

  async #groups(): Promise<Group[]> {
    const page = await this.#watched.store.list(resourcePrefix(groupKind), { limit: 1_000 });
    return page.entries.map((entry) => fromStored<Group>(entry));
  }

  #sawInstance(key: string, instance: Instance | undefined): void {
    for (const promised of this.#promised.values()) promised.delete(key);
    const host = instance?.status.host;
    if (!instance || host === undefined) return;
    const promised = this.#promised.get(host) ?? new Map<string, number>();
    this.#promised.set(host, promised);
    promised.set(key, instance.spec.memoryMib);
    let sum = 0;
    for (const memoryMib of promised.values()) sum += memoryMib;
    const most = this.capacity.get(host) ?? 0;
    if (sum > most) this.#problems.push(`${host} has promised ${sum} MiB of ${most}`);
  }

  #sawDecision({ spec }: ScalingDecision): void {
    const directions = this.#directions.get(spec.group.name) ?? [];
    directions.push(Math.sign(spec.to - spec.from));
    this.#directions.set(spec.group.name, directions);
    const min = this.minimums.get(spec.group.name) ?? 0;
    if (spec.to < min) this.#problems.push(`${spec.group.name} was given ${spec.to}, its minimum is ${min}`);
  }

  async #follow(prefix: string, saw: (key: string, resource: unknown) => void): Promise<void> {
    const { store, signal } = this.#watched;
    try {
      for await (const event of store.watch(prefix, 0, signal)) {
        saw(event.key, event.type === "put" ? fromStored(event) : undefined);
      }
    } catch (error) {
      if (!signal.aborted) this.#problems.push(`a watch ended: ${error}`);
    }
  }
}

/** Each host has one image, of its own number. */
function hostOf({ spec }: Group): string {
  return spec.template.image.replace("image-", "host-");
}
