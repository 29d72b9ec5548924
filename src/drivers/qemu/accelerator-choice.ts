import { readFile } from "node:fs/promises";
import { describeError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import type { KvmProof } from "../../host/probes/kvm.ts";
import type { Accelerator } from "./command-line.ts";

export interface AcceleratorChoiceOptions {
  proveKvm(signal: AbortSignal): Promise<KvmProof>;
  logger: Logger;
}

/** KVM where it is proven, else TCG. What was proven is kept; what could not be tried is tried again next time. */
export class AcceleratorChoice {
  readonly #options: AcceleratorChoiceOptions;
  #proof: KvmProof | undefined;

  constructor(options: AcceleratorChoiceOptions) {
    this.#options = options;
  }

  async prove(signal: AbortSignal): Promise<KvmProof> {
    this.#proof ??= await this.#options.proveKvm(signal);
    return this.#proof;
  }

  async choose(signal: AbortSignal): Promise<Accelerator> {
    try {
      if ((await this.prove(signal)).works) return { type: "kvm" };
    } catch (error) {
      signal.throwIfAborted();
      this.#options.logger.warn({ error: describeError(error) }, "KVM could not be probed; emulating");
    }
    return { type: "tcg", tscKhz: parseTscKhz(await readFile("/proc/cpuinfo", "utf8")) };
  }
}

/**
 * The rate of the host's time stamp counter. BogoMIPS is twice that in MHz, on every x86 host that has a constant one,
 * to the digit; `cpu MHz` is what the core happens to run at.
 */
export function parseTscKhz(cpuinfo: string): number {
  const bogomips = /^bogomips\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1];
  const clock = /^cpu MHz\s*:\s*([\d.]+)$/m.exec(cpuinfo)?.[1];
  const mhz = bogomips === undefined ? Number(clock ?? 0) : Number(bogomips) / 2;
  return mhz > 0 ? Math.round(mhz * 1000) : 1_000_000;
}
