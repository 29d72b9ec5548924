/**
 * Hosts as far as groups see them: what was placed becomes ready after a while, or never; what is deleted goes; guests crash;
 * what a host has to say may be late or lost, and is said again.
 */
import { toTimestamp } from "../../src/core/clock.ts";
import { hasCode } from "../../src/core/errors.ts";
import type { JsonObject } from "../../src/core/json.ts";
import type { VirtualClock } from "../../src/core/virtual-clock.ts";
import { type Instance, instanceKind } from "../../src/kinds/instance.ts";
import { type Ref, resourcePrefix } from "../../src/kinds/keys.ts";
import { type Kind, type Resource, withCondition } from "../../src/kinds/kind.ts";
import { fromStored } from "../../src/kinds/stored.ts";
import { volumeKind } from "../../src/kinds/volume.ts";
import { systemPrincipal } from "../../src/services/principal.ts";
import type { Services } from "../../src/services/services.ts";
import type { Store } from "../../src/store/store.ts";
import type { Chance } from "../chance.ts";

export interface ModelHostsOptions {
  store: Store;
  services: Services;
  clock: VirtualClock;
  chance: Chance;
  faults: () => boolean;
  signal: AbortSignal;
}

export class ModelHosts {
  readonly instances = new Map<string, Instance>();
  readonly counts = { boots: 0, crashes: 0, failures: 0, lost: 0 };
  readonly #options: ModelHostsOptions;
  /** Uids of what a host has begun with. */
  readonly #begun = new Set<string>();

  constructor(options: ModelHostsOptions) {
    this.#options = options;
    void this.#follow(instanceKind as unknown as Kind, (resource) => this.#sawInstance(resource as Instance));
    void this.#follow(volumeKind as Kind, (volume) => this.#sawDeletion(volumeKind as Kind, volume));
  }

  /** Some guest stops answering; most come back by themselves. */
  crash(): void {
    const { chance } = this.#options;
    const running = [...this.instances.values()].filter(({ status }) => status.state === "running");
    const victim = chance.pick(running);
    if (!victim) return;
    this.counts.crashes++;
    this.#say(victim, { ready: false });
    if (chance.happens(0.7))
      this.#later(chance.between(2_000, 20_000), () => this.#say(victim, { ready: true }));
    else if (chance.happens(0.5)) this.#say(victim, { failed: true });
  }

  async #follow(kind: Kind, saw: (resource: Resource) => void): Promise<void> {
    const { store, signal } = this.#options;
    const prefix = resourcePrefix(kind);
    try {
      for await (const event of store.watch(prefix, 0, signal)) {
        if (event.type === "put") saw(fromStored(event));
        else if (kind.name === instanceKind.name) this.instances.delete(event.key);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  #sawInstance(instance: Instance): void {
    const { project, name, uid, deletedAt } = instance.metadata;
    this.instances.set(`/instances/${project}/${name}`, instance);
    if (deletedAt !== undefined) {
      this.#sawDeletion(instanceKind as unknown as Kind, instance);
      return;
    }
    if (instance.status.host === undefined || this.#begun.has(uid)) return;
    this.#begun.add(uid);
    const { chance } = this.#options;
    this.counts.boots++;
    const fault = this.#options.faults() && chance.happens(0.01);
    if (fault) this.counts.failures++;
    this.#later(chance.between(1_000, 30_000), () => {
      this.#say(instance, fault ? { failed: true } : { ready: true });
    });
  }

  #sawDeletion(kind: Kind, resource: Resource): void {
    const { uid, deletedAt, finalizers } = resource.metadata;
    if (deletedAt === undefined || !finalizers.includes("agent") || this.#begun.has(`${uid} goes`)) return;
    this.#begun.add(`${uid} goes`);
    const { services, chance } = this.#options;
    this.#later(chance.between(500, 10_000), async () => {
      await services.resources.removeFinalizer(systemPrincipal, kind, resource.metadata as Ref, uid, "agent");
      this.#begun.delete(uid);
      this.#begun.delete(`${uid} goes`);
    });
  }

  #say(instance: Instance, what: { ready?: boolean; failed?: boolean }): void {
    const { services, clock, chance } = this.#options;
    const { metadata } = instance;
    const attempt = async (): Promise<void> => {
      if (this.#options.faults() && chance.happens(0.03)) {
        this.counts.lost++;
        this.#later(chance.between(1_000, 60_000), attempt);
        return;
      }
      const at = toTimestamp(clock.now());
      const known = this.instances.get(`/instances/${metadata.project}/${metadata.name}`) ?? instance;
      const ready = what.ready ?? false;
      const status: JsonObject = {
        state: what.failed ? "failed" : "running",
        message: what.failed ? "its disk is broken" : "",
        conditions: withCondition(
          known.status.conditions,
          {
            type: "Ready",
            status: ready ? "true" : "false",
            reason: "Model",
            message: ready ? "" : "no answer",
          },
          at,
        ),
      };
      await services.resources.patchStatus(
        systemPrincipal,
        instanceKind,
        metadata as Ref,
        metadata.uid,
        status,
      );
    };
    this.#later(0, attempt);
  }

  #later(delayMs: number, action: () => void | Promise<void>): void {
    this.#options.clock.after(delayMs, async () => {
      try {
        await action();
      } catch (error) {
        if (!hasCode(error, "NotFound")) throw error;
      }
    });
  }
}
