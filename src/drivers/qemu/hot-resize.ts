/**
 * Processors and memory of a machine that runs.
 *
 * Processors are plugged in and brought into use by the guest's agent (kernels wait to be told). They are never taken out:
 * the guest is asked to put them out of use, and its control group holds it to their number in any case. QEMU 7.2 dies
 * some time after a processor was unplugged under emulation.
 *
 * Memory comes and goes through virtio-mem. What the machine began with cannot go. A guest that cannot spare what it is
 * asked to give back keeps all of it; one that ignores its bounds is stopped by its control group.
 *
 * Called with the guest's lock held.
 */
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import type { Accelerator } from "./command-line.ts";
import { isAgentThere } from "./exec-ports.ts";
import { type GuestAgent, withAgent } from "./guest-agent.ts";
import type { GuestRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import {
  type MachineSize,
  pollGuestMemory,
  readGuestMemory,
  readHotMemory,
  readMachineSize,
  requestHotMemory,
} from "./machine-size.ts";
import { cgroupLimits } from "./resource-limits.ts";
import { validateGuest } from "./validate-guest.ts";

export interface HotResizeOptions {
  cgroups: Cgroups;
  clock: Clock;
  random: Random;
  logger: Logger;
  accelerator(signal: AbortSignal): Promise<Accelerator>;
}

interface Size {
  cpus: number;
  memoryMib: number;
}

/** Without progress. A guest takes 128 MiB in milliseconds, in a tenth of a second under emulation. */
const memoryTimeoutMs = 10_000;
/** For the guest's kernel to see a processor. */
const cpuTimeoutMs = 10_000;
const agentTimeoutMs = 10_000;
/** The balloon driver is asked every second. */
const statsTimeoutMs = 5_000;
/** Of the memory that a guest has left. */
const spareShare = 0.05;
const lookEveryMs = 50;
/** Linux takes and gives whole groups of pages. */
const memoryStepMib = 4;

export class HotResize {
  readonly #guest: GuestLifecycle;
  readonly #options: HotResizeOptions;

  constructor(guest: GuestLifecycle, options: HotResizeOptions) {
    this.#guest = guest;
    this.#options = options;
  }

  async apply(size: Size, signal: AbortSignal): Promise<void> {
    const { files } = this.#guest;
    const record = await files.readGuest();
    if (record === undefined) {
      throw new StrataError("NotFound", `the virtual machine ${files.uid} does not exist on this host`);
    }
    const spec = validateGuest({ ...record.spec, cpus: size.cpus, memoryMib: size.memoryMib });
    if ((await this.#guest.look()).state === "running") await this.#applyLive(record, size, signal);
    await files.writeGuest({ ...record, spec });
  }

  async #applyLive(record: GuestRecord, size: Size, signal: AbortSignal): Promise<void> {
    const before = { cpus: record.spec.cpus, memoryMib: record.spec.memoryMib };
    const { machine, hasAgent } = await this.#guest.withMonitor(
      async (monitor) => ({
        machine: await readMachineSize(monitor),
        hasAgent: await isAgentThere(monitor),
      }),
      { signal },
    );
    const hotMib = this.#hotMib(machine, size);
    if (size.cpus > machine.cpus + machine.freeCpus.length) {
      throw new StrataError(
        "Unsupported",
        `the machine was started with places for ${machine.cpus + machine.freeCpus.length} processors; ${size.cpus} need a restart`,
      );
    }
    if (size.cpus > before.cpus && !hasAgent) {
      throw new StrataError(
        "Unsupported",
        "no guest agent runs in the guest, which would bring more processors into use; they need a restart",
      );
    }
    const accelerator = await this.#options.accelerator(signal);
    const limit = (to: Size) =>
      this.#options.cgroups.ensure(this.#guest.group, cgroupLimits(to, accelerator));
    const larger = {
      cpus: Math.max(before.cpus, size.cpus),
      memoryMib: Math.max(before.memoryMib, size.memoryMib),
    };
    if (machine.hot && hotMib < machine.hot.sizeMib) {
      await this.#expectFree(machine.hot.sizeMib - hotMib, size.memoryMib, signal);
    }
    await limit(larger);
    try {
      if (machine.hot) await this.#moveMemory(machine.hot.requestedMib, hotMib, signal);
      if (size.cpus !== before.cpus) await this.#changeCpus(machine, size.cpus, hasAgent, signal);
      await limit(size);
    } catch (error) {
      // As it was: what cannot be had in full is not had at all.
      if (machine.hot) await this.#request(machine.hot.requestedMib, signal);
      await limit(before);
      throw error;
    }
  }

  /** @throws Unsupported for what this machine cannot have without a restart. */
  #hotMib({ baseMib, hot }: MachineSize, { memoryMib }: Size): number {
    const wanted = Math.ceil((memoryMib - baseMib) / memoryStepMib) * memoryStepMib;
    if (wanted === 0 || (wanted > 0 && hot !== undefined && wanted <= hot.maxMib)) return wanted;
    throw new StrataError(
      "Unsupported",
      wanted < 0
        ? `the machine was started with ${baseMib} MiB of memory; less than that needs a restart`
        : `the machine was started with room for ${baseMib + (hot?.maxMib ?? 0)} MiB of memory; ${memoryMib} MiB need a restart`,
    );
  }

  /**
   * A guest that is made to give back more than it can spare ends programs of its own choice. So it is asked beforehand;
   * one that has no balloon driver to answer is taken to know what it does.
   * @throws Conflict.
   */
  async #expectFree(mib: number, remainingMib: number, signal: AbortSignal): Promise<void> {
    const availableMib = await this.#availableMib(signal);
    const spareMib = Math.ceil(remainingMib * spareShare);
    if (availableMib === undefined || availableMib >= mib + spareMib) return;
    throw new StrataError(
      "Conflict",
      `the guest's programs use too much memory: ${Math.floor(availableMib)} MiB are available, and ${mib + spareMib} MiB must be to give ${mib} MiB back; end some of them first`,
    );
  }

  async #availableMib(signal: AbortSignal): Promise<number | undefined> {
    const { clock } = this.#options;
    const deadline = clock.monotonicMs() + statsTimeoutMs;
    const before = await this.#guest.withMonitor(
      async (monitor) => {
        const last = await readGuestMemory(monitor);
        await pollGuestMemory(monitor, 1);
        return last;
      },
      { signal },
    );
    try {
      while (clock.monotonicMs() < deadline) {
        const told = await this.#guest.withMonitor(readGuestMemory, { signal });
        if (told.toldAt !== before.toldAt) return told.availableMib;
        await clock.sleep(lookEveryMs, signal);
      }
      return undefined;
    } finally {
      await this.#guest.withMonitor((monitor) => pollGuestMemory(monitor, 0));
    }
  }

  async #moveMemory(fromMib: number, toMib: number, signal: AbortSignal): Promise<void> {
    await this.#request(toMib, signal);
    const { clock } = this.#options;
    let lastMib = -1;
    let deadline = 0;
    for (;;) {
      const sizeMib = await this.#guest.withMonitor(
        async (monitor) => (await readHotMemory(monitor))?.sizeMib,
        {
          signal,
        },
      );
      if (sizeMib === toMib || sizeMib === undefined) return;
      if (sizeMib !== lastMib) {
        lastMib = sizeMib;
        deadline = clock.monotonicMs() + memoryTimeoutMs;
      }
      if (clock.monotonicMs() > deadline) break;
      await clock.sleep(lookEveryMs, signal);
    }
    if (toMib < fromMib) {
      throw new StrataError(
        "Conflict",
        `the guest does not give back ${lastMib - toMib} MiB of its memory: its programs use too much of it; end some of them first`,
      );
    }
    throw new StrataError(
      "Unsupported",
      "the guest does not take more memory while it runs: its kernel has no driver for it (virtio_mem), or still boots; it needs a restart",
    );
  }

  #request(mib: number, signal: AbortSignal): Promise<void> {
    return this.#guest.withMonitor((monitor) => requestHotMemory(monitor, mib), { signal });
  }

  async #changeCpus(
    machine: MachineSize,
    wanted: number,
    hasAgent: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const missing = machine.freeCpus.slice(0, Math.max(0, wanted - machine.cpus));
    await this.#guest.withMonitor(
      async (monitor) => {
        for (const cpu of missing) await monitor.execute("device_add", cpu);
      },
      { signal },
    );
    if (!hasAgent) return;
    try {
      await this.#useCpus(wanted, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (missing.length > 0 || wanted > machine.cpus) throw error;
      this.#options.logger.warn(
        { uid: this.#guest.files.uid, error: describeError(error) },
        "a guest does not put processors out of use; its control group limits it all the same",
      );
    }
  }

  /** Has the guest use exactly so many of its processors. */
  async #useCpus(wanted: number, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const deadline = clock.monotonicMs() + cpuTimeoutMs;
    const options = { clock, random, timeoutMs: agentTimeoutMs };
    for (;;) {
      const path = this.#guest.files.socket("agent");
      if (await withAgent(path, options, signal, (agent) => useCpus(agent, wanted))) return;
      if (clock.monotonicMs() > deadline) break;
      await clock.sleep(lookEveryMs, signal);
    }
    throw new StrataError(
      "Unsupported",
      "the guest does not see the processors that were added; it needs a restart",
    );
  }
}

/** False while the guest does not see as many as it should use. */
async function useCpus(agent: GuestAgent, wanted: number): Promise<boolean> {
  const answer = await agent.execute("guest-get-vcpus");
  const cpus = (Array.isArray(answer) ? answer.filter(isJsonObject) : []).toSorted(
    (a, b) => Number(a["logical-id"]) - Number(b["logical-id"]),
  );
  const changes = cpus
    .map((cpu, index) => ({ cpu, online: index < wanted }))
    .filter(({ cpu, online }) => cpu.online !== online && (online || cpu["can-offline"] !== false))
    .map(({ cpu, online }) => ({ "logical-id": cpu["logical-id"] ?? 0, online }));
  if (changes.length > 0) await agent.execute("guest-set-vcpus", { vcpus: changes });
  return cpus.length >= wanted;
}
