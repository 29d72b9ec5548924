/**
 * Network cards that come and go while a machine runs. What is wanted is recorded before it is done, and forgotten after
 * it is gone, so that a repeated call, the next start and a removal find everything there is.
 *
 * A card is taken out with the guest's help. One that does not help (it still boots, or has no driver for it) loses the
 * card's network all the same; its place stays taken until the guest has let go of it or is restarted.
 *
 * Everything here is called with the guest's lock held.
 */
import type { Clock } from "../../core/clock.ts";
import { describeError, hasCode, StrataError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import type { GuestNic } from "../driver.ts";
import { placeCards } from "./card-places.ts";
import { cardIds, hotCard } from "./command-line.ts";
import type { GuestRecord, RunRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { dropQuietly, namesOf, peripherals } from "./machine-objects.ts";
import type { QmpClient } from "./qmp-client.ts";
import {
  ensureTunAccess,
  joinFurtherPort,
  makeLoosePort,
  markOfPort,
  removeFurtherPort,
} from "./tap-ports.ts";
import { validateGuest } from "./validate-guest.ts";

export interface HotCardsOptions {
  clock: Clock;
  logger: Logger;
}

/** For the guest to let go of a card; a kernel that is up takes a tenth of a second. */
const leaveTimeoutMs = 10_000;
const lookEveryMs = 50;

export class HotCards {
  readonly #guest: GuestLifecycle;
  readonly #options: HotCardsOptions;

  constructor(guest: GuestLifecycle, options: HotCardsOptions) {
    this.#guest = guest;
    this.#options = options;
  }

  async attach(nic: GuestNic, signal: AbortSignal): Promise<void> {
    const known = await this.#require();
    const [first] = known.spec.nics;
    if (first?.port === nic.port) return;
    if (first === undefined) {
      throw new StrataError(
        "Unsupported",
        "a virtual machine without a network card of its own can have no further ones",
      );
    }
    const run = await this.#run();
    const leaving = run === undefined ? [] : await this.#stillLeaving(known);
    const others = known.spec.nics.filter(({ port }) => port !== nic.port);
    const spec = validateGuest({ ...known.spec, nics: [...others, nic] });
    const taken = leaving.map(({ place }) => place);
    const record = { ...known, spec, leaving, places: placeCards(spec.nics, known.places ?? {}, taken) };
    await this.#guest.files.writeGuest(record);
    if (run !== undefined) await this.#plug(record, run, nic, signal);
  }

  async detach(card: Pick<GuestNic, "netns" | "port">, signal: AbortSignal): Promise<void> {
    const known = await this.#guest.files.readGuest();
    if (known === undefined) return;
    const [first] = known.spec.nics;
    if (first?.port === card.port) {
      throw new StrataError("Invalid", "a virtual machine's first network card is its own for life");
    }
    const running = (await this.#run()) !== undefined;
    const nic = known.spec.nics.find(({ port }) => port === card.port);
    const place = known.places?.[card.port];
    if (nic === undefined || place === undefined) {
      await removeFurtherPort(card, first?.netns);
      const leaving = running ? await this.#stillLeaving(known) : [];
      return this.#guest.files.writeGuest({ ...known, leaving });
    }
    const nics = known.spec.nics.filter(({ port }) => port !== card.port);
    const { [card.port]: _, ...places } = known.places ?? {};
    const leaving = [...(known.leaving ?? []), { netns: nic.netns, port: nic.port, place }];
    const record = { ...known, spec: { ...known.spec, nics }, places, leaving };
    await this.#guest.files.writeGuest(record);
    if (running) await this.#unplug(place, nic, first?.netns, signal);
    await this.#guest.files.writeGuest({
      ...record,
      leaving: running ? await this.#stillLeaving(record) : [],
    });
  }

  /** After a start that was cut short between QEMU's coming and its cards'. */
  async complete(signal: AbortSignal): Promise<void> {
    const record = await this.#require();
    const run = await this.#run();
    if (run === undefined) return;
    for (const nic of record.spec.nics.slice(1)) await this.#plug(record, run, nic, signal);
  }

  async #plug(record: GuestRecord, run: RunRecord, nic: GuestNic, signal: AbortSignal): Promise<void> {
    const home = record.spec.nics[0]?.netns ?? nic.netns;
    const place = record.places?.[nic.port] ?? 0;
    if ((await markOfPort(nic)) === run.runId) return;
    try {
      await this.#guest.withMonitor(
        async (monitor) => {
          // It holds on to its port, which has yet to be joined.
          if ((await namesOf(monitor, peripherals)).has(cardIds(place).device)) return;
          await dropNetdev(monitor, place);
          await ensureTunAccess();
          await makeLoosePort(nic, home, record.processUid, signal);
          const { netdev, device } = hotCard(nic, place);
          await monitor.execute("netdev_add", netdev);
          await monitor.execute("device_add", device);
        },
        { signal },
      );
      await joinFurtherPort(nic, home, run.runId, signal);
    } catch (error) {
      signal.throwIfAborted();
      await this.detach(nic, signal).catch((cause) => {
        this.#options.logger.warn({ error: describeError(cause) }, "a card that failed was not taken out");
      });
      if (!hasCode(error, "Internal")) throw error;
      throw new StrataError("Unavailable", `QEMU could not plug in the network card ${nic.port}`, {
        cause: error,
      });
    }
  }

  /** The network first: the guest cannot refuse that. */
  async #unplug(place: number, nic: GuestNic, home: string | undefined, signal: AbortSignal): Promise<void> {
    await this.#guest.withMonitor((monitor) => dropNetdev(monitor, place), { signal });
    await removeFurtherPort(nic, home);
    const { device } = cardIds(place);
    const { clock, logger } = this.#options;
    const deadline = clock.monotonicMs() + leaveTimeoutMs;
    for (let asked = false; ; asked = true) {
      const left = await this.#guest.withMonitor(
        async (monitor) => {
          if (!(await namesOf(monitor, peripherals)).has(device)) return true;
          if (!asked) await askToLeave(monitor, device);
          return false;
        },
        { signal },
      );
      if (left) return;
      if (clock.monotonicMs() > deadline) break;
      await clock.sleep(lookEveryMs, signal);
    }
    logger.warn({ uid: this.#guest.files.uid, place }, "a guest does not let go of a network card");
  }

  /** Those of `record.leaving` that the machine has not let go of; they are asked once more. */
  async #stillLeaving(record: GuestRecord): Promise<NonNullable<GuestRecord["leaving"]>> {
    const { leaving = [] } = record;
    if (leaving.length === 0) return leaving;
    const home = record.spec.nics[0]?.netns;
    for (const card of leaving) await removeFurtherPort(card, home);
    return this.#guest.withMonitor(async (monitor) => {
      for (const { place } of leaving) {
        await dropNetdev(monitor, place);
        await askToLeave(monitor, cardIds(place).device);
      }
      const devices = await namesOf(monitor, peripherals);
      return leaving.filter(({ place }) => devices.has(cardIds(place).device));
    });
  }

  async #run(): Promise<RunRecord | undefined> {
    const sight = await this.#guest.look();
    return sight.state === "running" ? sight.run : undefined;
  }

  async #require(): Promise<GuestRecord> {
    const record = await this.#guest.files.readGuest();
    if (record !== undefined) return record;
    throw new StrataError(
      "NotFound",
      `the virtual machine ${this.#guest.files.uid} does not exist on this host`,
    );
  }
}

async function dropNetdev(monitor: QmpClient, place: number): Promise<void> {
  await dropQuietly(monitor.execute("netdev_del", { id: cardIds(place).netdev }));
}

async function askToLeave(monitor: QmpClient, device: string): Promise<void> {
  await dropQuietly(monitor.execute("device_del", { id: device }));
}
