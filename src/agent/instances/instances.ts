/**
 * Keeps the guests of this host as their instances want them. The plan is in plan.ts; here is what surrounds it: which
 * hints lead to which instance, how the status is told, and what counts as news.
 *
 * Lanes: virtual machines and containers do not wait for each other, and what is being deleted waits for neither.
 */
import { hasCode, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { GuestDriver } from "../../drivers/driver.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { checkByCommand } from "../health/command-check.ts";
import { HealthChecks } from "../health/health-checks.ts";
import { reportStatus } from "../report.ts";
import { instanceKeyOf, networkKeyOf } from "../views.ts";
import { waitingFor } from "../volumes/rollbacks.ts";
import { executeInstanceAction } from "./execute.ts";
import { reportFailure } from "./failure.ts";
import { InstanceMemory } from "./memory.ts";
import { blank, observeInstance } from "./observe.ts";
import { planInstance } from "./plan.ts";
import { ServiceProbes } from "./probes.ts";
import type { InstanceAction, InstanceReport, InstanceWorld } from "./world.ts";

export function createInstanceReconciler(context: AgentContext): InstanceReconciler {
  return new InstanceReconciler(context);
}

class InstanceReconciler implements Reconciler<InstanceWorld, InstanceAction, InstanceReport> {
  readonly name = "instances";
  readonly watches: readonly Watch[];
  /** Something else that an instance depends on has changed. */
  readonly #related = new Hints();
  readonly #context: AgentContext;
  readonly #memory: InstanceMemory;
  /** Drivers whose events were listened to before. */
  readonly #heard = new Set<string>();

  constructor(context: AgentContext) {
    this.#context = context;
    const { views, drivers } = context;
    const { instances } = views;
    this.#memory = new InstanceMemory(
      new ServiceProbes({
        connect: context.connect,
        clock: context.clock,
        hint: (key) => this.#related.hint(key),
        hostAddress: (network) => context.attachments.get(network)?.hostAddress,
      }),
      this.#createChecks(),
    );
    context.signal.addEventListener(
      "abort",
      () => {
        this.#memory.probes.stop();
        this.#memory.checks.stop();
      },
      { once: true },
    );
    this.watches = [
      { name: "instances", urgent: true, keys: (signal) => instances.watchKeys(signal) },
      { name: "related", keys: (signal) => this.#related.keys(signal) },
      ...[...drivers.all()].map((driver) => ({
        name: `guests of ${driver.name}`,
        keys: (signal: AbortSignal) => this.#guestKeys(driver, signal),
      })),
    ];
    this.#followRelated();
  }

  #createChecks(): HealthChecks {
    const { checks, clock, attachments, drivers, views } = this.#context;
    return new HealthChecks({
      clock,
      network: checks,
      command: ({ driver, handle, command }, timeoutMs, signal) =>
        checkByCommand(clock, { driver: drivers.require(driver), handle, command }, timeoutMs, signal),
      hostAddress: (network) => attachments.get(network)?.hostAddress,
      wanted: (uid) => {
        const instance = views.instances.byUid(uid);
        const { state } = instance?.status ?? {};
        return instance?.spec.healthCheck !== undefined && (state === "running" || state === "starting");
      },
      hint: (key) => this.#related.hint(key),
      onFailure: (uid) => {
        if (this.#memory.probes.doubt(uid)) this.#related.hint(this.#keyOf(uid));
      },
    });
  }

  observe(key: string): Promise<InstanceWorld> {
    return observeInstance(this.#context, this.#memory, key);
  }

  plan(world: InstanceWorld, now: number) {
    return planInstance(world, now);
  }

  execute(action: InstanceAction, signal: AbortSignal): Promise<void> {
    return executeInstanceAction(this.#context, this.#memory, action, signal);
  }

  async report(
    _key: string,
    world: InstanceWorld,
    report: InstanceReport,
    signal: AbortSignal,
  ): Promise<void> {
    const { instance } = world;
    if (!instance) return;
    const { client, views, events, guestCards } = this.#context;
    const { uid, deletedAt } = instance.metadata;
    if (report.status.state !== "starting") {
      this.#memory.attempts.delete(uid);
      guestCards.endStart(uid);
    }
    try {
      const told = await reportStatus(client, instanceKind, views.instances, instance, report.status, signal);
      if (told) for (const event of report.events) events.record(instance, event);
    } catch (error) {
      // The finalizer that leads to its end may have gone first.
      if (!(deletedAt !== undefined && hasCode(error, "NotFound"))) throw error;
    }
  }

  async failed(key: string, failure: Failure<InstanceWorld>, signal: AbortSignal): Promise<void> {
    const instance = this.#context.views.instances.get(key);
    if (!instance || instance.status.host !== this.#context.hostName) return;
    if (failure.world?.instance && failure.world.instance.metadata.uid !== instance.metadata.uid) return;
    const error = toStrataError(failure.error, `work on instance "${instance.metadata.name}"`);
    const guestRuns = failure.world === undefined || failure.world.guest?.observed.state === "running";
    const report = reportFailure(instance, error, failure.retryAfterMs, guestRuns);
    const world = { ...emptyWorld, key, hostName: this.#context.hostName, instance };
    await this.report(key, world, report, signal);
  }

  /** Deletion ends whatever is being done for an instance: a start, or a stop that waits for the guest. */
  obsolete(key: string, world: InstanceWorld): boolean {
    if (!world.instance || world.instance.metadata.deletedAt !== undefined) return false;
    const now = this.#context.views.instances.get(key);
    return now === undefined || now.metadata.deletedAt !== undefined;
  }

  lane(key: string): string {
    const instance = this.#context.views.instances.get(key);
    if (!instance || instance.metadata.deletedAt !== undefined) return "deletion";
    return instance.spec.type;
  }

  /** The drivers' fingerprints are known: instances that waited for one go on. */
  driversKnown(): void {
    for (const instance of this.#context.views.instances.values()) {
      if (instance.status.handle === undefined) this.#related.hint(this.#keyOf(instance.metadata.uid));
    }
  }

  #keyOf(uid: string): string {
    const { instances } = this.#context.views;
    const instance = instances.byUid(uid);
    return instance ? instances.keyOf(instance) : "";
  }

  /** When it is called again, events may have been missed in between: all guests of the driver are looked at. */
  async *#guestKeys(driver: GuestDriver, signal: AbortSignal): AsyncGenerator<string> {
    const events = driver.events(signal);
    if (this.#heard.has(driver.name)) {
      for (const instance of this.#context.views.instances.values()) {
        if (instance.status.driver === driver.name) yield this.#keyOf(instance.metadata.uid);
      }
    }
    this.#heard.add(driver.name);
    for await (const { uid } of events) {
      this.#memory.probes.doubt(uid);
      const key = this.#keyOf(uid);
      if (key !== "") yield key;
    }
  }

  #followRelated(): void {
    const { views } = this.#context;
    const hintAll = (keys: ReadonlySet<string>) => {
      for (const key of keys) this.#related.hint(key);
    };
    views.instances.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        this.#memory.forget(previous.metadata.uid);
    });
    views.images.onChange((key, next, previous) => {
      if (next?.status.state !== previous?.status.state) hintAll(views.instancesByImage.keysOf(key));
    });
    views.networks.onChange((key, next, previous) => {
      if (next?.status.cidr !== previous?.status.cidr) hintAll(views.instancesByNetwork.keysOf(key));
    });
    views.subnets.onChange((_key, next, previous) => {
      if (next?.status.gateway === undefined || previous?.status.gateway !== undefined) return;
      hintAll(views.instancesByNetwork.keysOf(networkKeyOf(next)));
    });
    views.interfaces.onChange((_key, next, previous) => {
      const key = next && instanceKeyOf(next);
      if (key === undefined || next?.status.instance === previous?.status.instance) return;
      if (views.instances.get(key)?.status.state !== "running") this.#related.hint(key);
    });
    views.volumes.onChange((_key, next, previous) => {
      const wish = next && instanceKeyOf(next);
      if (wish !== undefined && next?.status.instance !== previous?.status.instance) {
        if (views.instances.get(wish)?.status.state !== "running") this.#related.hint(wish);
      }
      const owner = next?.metadata.owner?.uid;
      if (next && !previous && owner !== undefined && views.instances.byUid(owner)) {
        this.#related.hint(this.#keyOf(owner));
      }
    });
    views.snapshots.onChange((_key, next, previous) => {
      const snapshot = next ?? previous;
      if (snapshot && next?.status.state !== "pending") hintAll(new Set(waitingFor(this.#context, snapshot)));
    });
    views.keyPairs.onChange((_key, next, previous) => {
      if (!next || previous) return;
      for (const instance of views.instances.values()) {
        if (instance.status.reason === "KeyPairMissing")
          this.#related.hint(this.#keyOf(instance.metadata.uid));
      }
    });
  }
}

const emptyWorld = {
  image: undefined,
  network: undefined,
  subnet: undefined,
  volume: undefined,
  publicKeys: new Map<string, string>(),
  driver: { missing: "" },
  ...blank,
};
