import type { Clock } from "../src/core/clock.ts";
import { StrataError } from "../src/core/errors.ts";
import type { FakeCall, FakeEffect } from "../src/drivers/fake/fake-world.ts";
import type { Store } from "../src/store/store.ts";
import type { Chance } from "./chance.ts";
import type { Link } from "./service-client.ts";

/** Probabilities, per call. */
export interface FaultRates {
  /** A process dies before or after a call. */
  death: number;
  /** A call of the API fails, or its answer is lost, or is late. */
  link: number;
  /** A call of a driver does. */
  driver: number;
  /** A call of the host's images, disks and networks fails. */
  host: number;
}

export const noFaults: FaultRates = { death: 0, link: 0, driver: 0, host: 0 };

/** A link between an agent and the API that fails as `rates` says. */
export function faultyLink(chance: Chance, clock: Clock, rates: () => FaultRates): Link {
  return async (name, call) => {
    const { link } = rates();
    if (!chance.happens(link)) return call();
    const lost = () => new StrataError("Unavailable", `the simulated link lost ${name}`);
    switch (chance.below(3)) {
      case 0:
        throw lost();
      case 1:
        await call();
        throw lost();
      default:
        await clock.sleep(chance.between(1, 800));
        return call();
    }
  };
}

export function driverFaults(
  chance: Chance,
  rates: () => FaultRates,
): (call: FakeCall) => FakeEffect | undefined {
  return ({ verb }) => {
    if (!chance.happens(rates().driver)) return undefined;
    switch (chance.below(4)) {
      case 0:
        return { type: "fail", code: "Internal" };
      case 1:
        return { type: "lose-answer" };
      case 2:
        return { type: "delay", delayMs: chance.between(1, 3_000) };
      default:
        return verb === "start"
          ? { type: "die", delayMs: chance.between(0, 5_000), reason: "crash" }
          : undefined;
    }
  };
}

/** The same store, whose listings and watches take their time. */
export function late(store: Store, clock: Clock, chance: Chance): Store {
  async function* lateEvents<T>(events: AsyncIterable<T>): AsyncGenerator<T> {
    for await (const event of events) {
      if (chance.happens(0.2)) await clock.sleep(chance.below(200));
      yield event;
    }
  }
  return new Proxy(store, {
    get(_target, name) {
      const member = Reflect.get(store, name, store) as unknown;
      if (typeof member !== "function") return member;
      if (name === "watch") return (...args: Parameters<Store["watch"]>) => lateEvents(store.watch(...args));
      if (name !== "list") return member.bind(store);
      return async (...args: unknown[]) => {
        await clock.sleep(chance.below(50));
        return member.apply(store, args);
      };
    },
  });
}

/** The same object, whose calls fail now and then, before or after their effect. */
export function unreliable<T extends object>(
  target: T,
  label: string,
  chance: Chance,
  rates: () => FaultRates,
): T {
  return new Proxy(target, {
    get(_target, name) {
      const member = Reflect.get(target, name, target) as unknown;
      if (typeof member !== "function" || name === "events") return member;
      return async (...args: unknown[]) => {
        const fails = chance.happens(rates().host);
        const error = new StrataError("Internal", `the simulated host failed ${label}.${String(name)}`);
        if (fails && chance.happens(0.5)) throw error;
        const result: unknown = await member.apply(target, args);
        if (fails) throw error;
        return result;
      };
    },
  });
}
