import { StrataError } from "../core/errors.ts";
import type { GuestDriver } from "../drivers/driver.ts";
import type { Fingerprint } from "../kinds/host.ts";
import type { InstanceSpec } from "../kinds/instance.ts";
import type { DriverChoice } from "./instances/world.ts";

/**
 * The drivers of this host in the order of preference, with what each has proven to be able to do. Until a driver's
 * fingerprint is known, nothing new is given to it.
 */
export class DriverTable {
  readonly #drivers: ReadonlyMap<string, GuestDriver>;
  readonly #proven = new Map<string, Fingerprint>();
  readonly #assumed = new Map<string, Fingerprint>();

  constructor(drivers: readonly GuestDriver[]) {
    this.#drivers = new Map(drivers.map((driver) => [driver.name, driver]));
  }

  all(): IterableIterator<GuestDriver> {
    return this.#drivers.values();
  }

  find(name: string): GuestDriver | undefined {
    return this.#drivers.get(name);
  }

  /** @throws Unavailable when this host has no such driver. */
  require(name: string): GuestDriver {
    const driver = this.#drivers.get(name);
    if (driver) return driver;
    const known = [...this.#drivers.keys()].join(", ") || "none";
    throw new StrataError("Unavailable", `this host has no driver "${name}" (it has: ${known})`);
  }

  learn(name: string, fingerprint: Fingerprint): void {
    this.#proven.set(name, fingerprint);
  }

  /** What was proven before the agent was started holds until it is proven anew. */
  assume(name: string, fingerprint: Fingerprint): void {
    if (this.#drivers.has(name)) this.#assumed.set(name, fingerprint);
  }

  isProven(name: string): boolean {
    return this.#proven.has(name);
  }

  fingerprint(name: string): Fingerprint | undefined {
    return this.#proven.get(name) ?? this.#assumed.get(name);
  }

  /** For a new guest: the driver that spec names, or the first that can run the type. */
  choose(spec: Pick<InstanceSpec, "type" | "driver">): DriverChoice {
    const candidates = spec.driver === undefined ? this.#forAnyone() : [spec.driver];
    const reasons: string[] = [];
    for (const name of candidates) {
      const problem = this.#problem(name, spec.type);
      if (problem === undefined) return { name };
      reasons.push(`${name}: ${problem}`);
    }
    const why = reasons.length > 0 ? reasons.join("; ") : "it has no drivers";
    return { missing: `this host cannot run a ${spec.type} (${why})` };
  }

  /** Names of those that an instance need not name. */
  #forAnyone(): string[] {
    return [...this.#drivers.values()].filter(({ root }) => root !== "image").map(({ name }) => name);
  }

  #problem(name: string, type: InstanceSpec["type"]): string | undefined {
    if (!this.#drivers.has(name)) return "not on this host";
    const fingerprint = this.fingerprint(name);
    if (!fingerprint) return "still being probed";
    if (!fingerprint.available) return fingerprint.message || "not available";
    return fingerprint.types.includes(type) ? undefined : `runs ${fingerprint.types.join(" and ")} only`;
  }
}
