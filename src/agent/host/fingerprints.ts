import { toStrataError } from "../../core/errors.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import { untilAborted } from "../../reconcile/until-aborted.ts";
import type { AgentContext } from "../agent-context.ts";

interface DriverWorld {
  name: string;
  known: Fingerprint | undefined;
  /** Since the last proof. */
  ageMs: number;
}

/** A driver that was not available is asked again this often: what it lacked may have been installed. */
const retryUnavailableMs = 5 * 60_000;

/** Has each driver prove what it can do here: at the start, and again while it cannot do anything. */
export function createFingerprintReconciler(
  context: AgentContext,
  onKnown: () => void,
): Reconciler<DriverWorld, { name: string }, never> {
  const { drivers, clock, logger } = context;
  const provenAt = new Map<string, number>();
  return {
    name: "fingerprints",
    watches: [
      {
        name: "drivers",
        async *keys(signal) {
          for (const { name } of drivers.all()) yield name;
          await untilAborted(signal);
        },
      },
    ],
    async observe(name) {
      const at = provenAt.get(name);
      const known = drivers.isProven(name) ? drivers.fingerprint(name) : undefined;
      return { name, known, ageMs: at === undefined ? 0 : clock.now() - at };
    },
    plan({ name, known, ageMs }) {
      if (!known) return { status: undefined, actions: [{ name }] };
      if (known.available) return { status: undefined, actions: [] };
      if (ageMs >= retryUnavailableMs) return { status: undefined, actions: [{ name }] };
      return { status: undefined, actions: [], recheckAfterMs: retryUnavailableMs - ageMs };
    },
    async execute({ name }, signal) {
      const fingerprint = await drivers
        .require(name)
        .fingerprint(signal)
        .catch((error) => {
          signal.throwIfAborted();
          return unavailable(toStrataError(error, `the proof of driver "${name}"`).message);
        });
      provenAt.set(name, clock.now());
      drivers.learn(name, fingerprint);
      logger.info(
        { driver: name, available: fingerprint.available, message: fingerprint.message },
        "driver probed",
      );
      onKnown();
    },
  };
}

function unavailable(message: string): Fingerprint {
  return {
    available: false,
    message: message.slice(0, 1000),
    version: "",
    types: [],
    abilities: [],
    facts: {},
  };
}
