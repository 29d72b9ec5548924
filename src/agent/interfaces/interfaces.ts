/**
 * Further network cards: plugged into the guests of this host and unplugged, while they run where the driver can, else
 * with the next start. A guest that starts gets all its cards at once (instances/execute.ts).
 */
import { StrataError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { Uid } from "../../core/ids.ts";
import { isJsonObject, type JsonObject } from "../../core/json.ts";
import type { Instance } from "../../kinds/instance.ts";
import { type NetworkInterface, networkInterfaceKind } from "../../kinds/network-interface.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { instanceOfCard } from "../networks/contents.ts";
import { interfacePort } from "../networks/policy.ts";
import { reportStatus } from "../report.ts";
import { instanceKeyOf } from "../views.ts";
import { furtherNic, joinNetwork } from "./cards.ts";
import { type CurrentInstance, type InterfaceAction, type InterfaceWorld, planInterface } from "./plan.ts";

type Status = NetworkInterface["status"];

export function createInterfaceReconciler(
  context: AgentContext,
): Reconciler<InterfaceWorld, InterfaceAction, Status> {
  return new InterfaceReconciler(context);
}

class InterfaceReconciler implements Reconciler<InterfaceWorld, InterfaceAction, Status> {
  readonly name = "network-interfaces";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  /** Something became of an instance that has it or wants it. */
  readonly #related = new Hints();

  constructor(context: AgentContext) {
    this.#context = context;
    const { views } = context;
    this.watches = [
      { name: "network-interfaces", urgent: true, keys: (signal) => views.interfaces.watchKeys(signal) },
      { name: "instances", urgent: true, keys: (signal) => this.#related.keys(signal) },
    ];
    views.instances.onChange((key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        context.guestCards.forget(previous.metadata.uid);
      if (next && previous && next.status.state === previous.status.state) return;
      for (const card of views.interfacesByPlug.keysOf(key)) this.#related.hint(card);
      for (const card of views.interfacesByWish.keysOf(key)) this.#related.hint(card);
    });
  }

  async observe(key: string): Promise<InterfaceWorld> {
    const { views, hostName, policies } = this.#context;
    const card = views.interfaces.get(key);
    const wish = card && instanceKeyOf(card);
    const holder = card && instanceOfCard(views, card);
    return {
      hostName,
      card,
      wanted: wish === undefined ? undefined : views.instances.get(wish),
      current: card && holder && (await this.#observeHolder(card, holder)),
      released: card !== undefined && policies.departed.card(card.metadata.uid),
    };
  }

  plan(world: InterfaceWorld) {
    return planInterface(world);
  }

  async execute(action: InterfaceAction, signal: AbortSignal): Promise<void> {
    const { policies, guestCards, drivers } = this.#context;
    const { card } = action;
    switch (action.type) {
      case "claim":
        return this.#claim(card, action.instance, signal);
      case "plug": {
        const { instance, driver, handle } = action;
        const attachment = await joinNetwork(this.#context, card, signal);
        const { cards } = drivers.require(driver);
        if (!cards) throw new StrataError("Unsupported", `the driver ${driver} cannot plug cards in`);
        await cards.attach(handle, furtherNic(card, attachment), signal);
        guestCards.plugged(instance.metadata.uid, card.metadata.uid);
        return;
      }
      case "unplug":
        return this.#unplug(action, signal);
      case "release":
        return policies.releaseCard(card, signal);
    }
  }

  async report(_key: string, { card }: InterfaceWorld, status: Status, signal: AbortSignal): Promise<void> {
    if (!card) return;
    const { client, views, policies } = this.#context;
    await reportStatus(client, networkInterfaceKind, views.interfaces, card, status, signal);
    if (status.instance === undefined) policies.admitCard(card);
  }

  async failed(key: string, failure: Failure<InterfaceWorld>, signal: AbortSignal): Promise<void> {
    const card = this.#context.views.interfaces.get(key);
    if (!card || card.status.host !== this.#context.hostName) return;
    const error = toStrataError(failure.error, `work on network interface "${card.metadata.name}"`);
    const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
    const message = `${error.message}; trying again in ${seconds} s`.slice(0, 1000);
    const { client, views } = this.#context;
    await reportStatus(
      client,
      networkInterfaceKind,
      views.interfaces,
      card,
      { ...card.status, message },
      signal,
    );
  }

  async #observeHolder(card: NetworkInterface, instance: Instance): Promise<CurrentInstance> {
    const { drivers, guestCards } = this.#context;
    const { uid } = instance.metadata;
    const inGuest = guestCards.has(uid, card.metadata.uid);
    const { driver: name, handle } = instance.status;
    if (guestCards.isStarting(uid)) return { instance, guest: "starting", inGuest, reach: undefined };
    if (name === undefined || !isHandle(handle)) {
      return { instance, guest: "idle", inGuest, reach: undefined };
    }
    const driver = drivers.require(name);
    const observed = await driver.inspect(uid as Uid);
    const running = observed?.state === "running";
    return {
      instance,
      // It may have begun to start meanwhile.
      guest: guestCards.isStarting(uid) ? "starting" : running ? "running" : "idle",
      inGuest,
      reach: { driver: name, handle: observed?.handle ?? handle, canPlug: driver.cards !== undefined },
    };
  }

  async #claim(card: NetworkInterface, instance: Instance, signal: AbortSignal): Promise<void> {
    const { views, client, guestCards, hostName, policies } = this.#context;
    const current = views.interfaces.byUid(card.metadata.uid);
    if (!current || current.status.instance !== undefined) return;
    const siblings = [...views.interfacesByPlug.keysOf(views.instances.keyOf(instance))];
    const taken = new Set(siblings.map((key) => views.interfaces.get(key)?.status.device ?? 0));
    const { uid, name } = instance.metadata;
    const device = guestCards.claimDevice(uid, card.metadata.uid, taken);
    const status: Status = {
      ...current.status,
      state: "attaching",
      message: `is plugged into the instance "${name}"`,
      host: hostName,
      instance: name,
      device,
    };
    policies.admitCard(card);
    await reportStatus(client, networkInterfaceKind, views.interfaces, current, status, signal);
  }

  async #unplug(
    { card, instance, driver, handle }: Extract<InterfaceAction, { type: "unplug" }>,
    signal: AbortSignal,
  ): Promise<void> {
    const { drivers, guestCards } = this.#context;
    const attachment = await joinNetwork(this.#context, card, signal);
    const nic = {
      netns: attachment.netns,
      port: interfacePort(card.metadata.uid),
      macAddress: card.status.macAddress ?? "",
    };
    await drivers.require(driver).cards?.detach(handle, nic, signal);
    guestCards.unplugged(instance.metadata.uid, card.metadata.uid);
  }
}

function isHandle(value: unknown): value is JsonObject {
  return isJsonObject(value as never);
}
