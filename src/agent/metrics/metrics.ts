/**
 * Measures the guests of this host and the host itself, and reports it in one request a second. Members of groups have
 * their turn in each, because policies look at them; the others in every tenth, not all in the same. What cannot be reported is dropped: the
 * next round is better than an old one.
 */
import { toTimestamp } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type {
  GuestCounters,
  GuestMeter,
  HostReading,
  Measurements,
} from "../../host/measurements/measurements.ts";
import { hostKind } from "../../kinds/host.ts";
import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { AgentContext } from "../agent-context.ts";
import { instancePort, interfacePort } from "../networks/policy.ts";
import { usedPercent } from "../pools/plan.ts";
import { isDue, memberTicks, slowTicks } from "./pace.ts";
import { hostValues, instanceValues, type Reading, type Values } from "./rates.ts";

const tickMs = 1_000;
/** Guests read before others have their turn. */
const guestsAtOnce = 25;
/** Meters opened in one round: each asks a driver. */
const opensPerRound = 50;
/** Values in one request. */
const valuesPerReport = 4_900;

interface Metered {
  /** One run of the guest: another has another meter. */
  startedAt: string;
  meter: GuestMeter;
  last: Reading<GuestCounters> | undefined;
}

interface Sample {
  subject: string;
  uid: string;
  values: Values;
}

/** Until the signal aborts. */
export async function runMetrics(context: AgentContext, measurements: Measurements): Promise<void> {
  const rounds = new Rounds(context, measurements);
  const { clock, signal } = context;
  for (let tick = 0; !signal.aborted; tick++) {
    const begun = clock.monotonicMs();
    await rounds.run(tick);
    await clock.sleep(Math.max(0, begun + tickMs - clock.monotonicMs()), signal).catch(() => {});
  }
}

class Rounds {
  readonly #context: AgentContext;
  readonly #measurements: Measurements;
  readonly #meters = new Map<string, Metered>();
  #host: HostReading | undefined;
  #hostUid: string | undefined;
  /** Of groups, as of the last tick. */
  #members = 0;
  #failing = false;

  constructor(context: AgentContext, measurements: Measurements) {
    this.#context = context;
    this.#measurements = measurements;
  }

  async run(tick: number): Promise<void> {
    const { signal, logger } = this.#context;
    try {
      const samples = await this.#measureGuests(tick);
      if (isDue(tick, slowTicks)) samples.push(...(await this.#measureHost()), ...this.#storagePools());
      await this.#report(samples);
      this.#failing = false;
    } catch (error) {
      if (signal.aborted || this.#failing) return;
      this.#failing = true;
      logger.warn({ error: describeError(error) }, "measuring failed; it goes on with the next round");
    }
  }

  async #measureGuests(tick: number): Promise<Sample[]> {
    const { clock } = this.#context;
    const samples: Sample[] = [];
    let opens = 0;
    let sinceRest = 0;
    for (const instance of this.#due(tick)) {
      let metered = this.#meters.get(instance.metadata.uid);
      if (metered?.startedAt !== instance.status.startedAt) {
        if (opens++ >= opensPerRound) continue;
        metered = await this.#open(instance);
      }
      const values = metered && this.#read(instance, metered);
      if (!values) continue;
      const { uid } = instance.metadata;
      samples.push({ subject: this.#context.views.instances.keyOf(instance), uid, values });
      if (++sinceRest % guestsAtOnce === 0) await clock.sleep(0);
    }
    return samples;
  }

  /** Running instances whose turn it is. */
  #due(tick: number): Instance[] {
    const { views, hostName } = this.#context;
    const fastTicks = memberTicks(this.#members);
    const slow = isDue(tick, slowTicks);
    const running = new Set<string>();
    const due: Instance[] = [];
    let members = 0;
    for (const instance of views.instances.values()) {
      const { metadata, status } = instance;
      const member = metadata.owner?.kind === "Group";
      if (member) members++;
      const turn = isDue(tick, member ? fastTicks : slowTicks, metadata.uid);
      if (!turn && !slow) continue;
      if (status.state !== "running" || status.host !== hostName || status.driver === undefined) continue;
      running.add(metadata.uid);
      if (turn) due.push(instance);
    }
    this.#members = members;
    if (slow) this.#forgetOthers(running);
    return due;
  }

  #forgetOthers(running: ReadonlySet<string>): void {
    for (const uid of this.#meters.keys()) if (!running.has(uid)) this.#meters.delete(uid);
  }

  async #open(instance: Instance): Promise<Metered | undefined> {
    const { drivers } = this.#context;
    const { uid } = instance.metadata;
    const { driver = "", startedAt = "" } = instance.status;
    this.#meters.delete(uid);
    const pid = (await drivers.find(driver)?.inspect(uid as Uid))?.pid;
    if (pid === undefined) return undefined;
    const ports = this.#portsOf(instance);
    const meter = this.#measurements.open({ uid, type: instance.spec.type, pid, ports });
    if (!meter) return undefined;
    const metered = { startedAt, meter, last: undefined };
    this.#meters.set(uid, metered);
    return metered;
  }

  #portsOf(instance: Instance): string[] {
    const { views } = this.#context;
    const further = [...views.interfacesByPlug.keysOf(views.instances.keyOf(instance))].flatMap((key) => {
      const card = views.interfaces.get(key);
      return card ? [interfacePort(card.metadata.uid)] : [];
    });
    return [instancePort(instance.metadata.uid), ...further];
  }

  #read(instance: Instance, metered: Metered): Values | undefined {
    const counters = metered.meter();
    if (!counters) {
      this.#meters.delete(instance.metadata.uid);
      return undefined;
    }
    const reading = { atMs: this.#context.clock.monotonicMs(), counters };
    const promised = instance.status.size ?? instance.spec;
    const values = instanceValues(metered.last, reading, promised);
    metered.last = reading;
    return values;
  }

  async #measureHost(): Promise<Sample[]> {
    const { client, hostName: name, signal } = this.#context;
    const reading = this.#measurements.host();
    const values = hostValues(this.#host, reading);
    this.#host = reading;
    this.#hostUid ??= (await client.get(hostKind, { name }, { signal }))?.metadata.uid;
    const uid = this.#hostUid;
    return uid === undefined ? [] : [{ subject: resourceKey(hostKind, { name }), uid, values }];
  }

  /** As their reconciler has just found them. */
  #storagePools(): Sample[] {
    const { views, hostName } = this.#context;
    return [...views.storagePools.values()].flatMap((pool) => {
      const here = pool.status.hosts[hostName];
      if (here?.state !== "ready") return [];
      const { capacityMib: capacity, usedMib: used, allocatedMib: allocated, promisedMib: promised } = here;
      const values = { "used-percent": usedPercent(here), capacity, used, allocated, promised };
      return [{ subject: views.storagePools.keyOf(pool), uid: pool.metadata.uid, values }];
    });
  }

  async #report(samples: readonly Sample[]): Promise<void> {
    const { client, clock, signal } = this.#context;
    const at = toTimestamp(clock.now());
    for (const part of partsOf(samples)) {
      const { unknown } = await client.reportMetrics({ at, samples: part }, { signal });
      if (unknown.some((subject) => subject.startsWith("/hosts/"))) this.#hostUid = undefined;
    }
  }
}

/** Mostly one; nothing when there is nothing to tell. */
function partsOf(samples: readonly Sample[]): Sample[][] {
  const parts: Sample[][] = [];
  let room = 0;
  for (const sample of samples) {
    const needed = Object.keys(sample.values).length;
    if (needed > room) {
      parts.push([]);
      room = valuesPerReport;
    }
    parts.at(-1)?.push(sample);
    room -= needed;
  }
  return parts;
}
