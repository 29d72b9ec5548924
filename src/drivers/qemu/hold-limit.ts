import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";

/** A guest loses its connections when it is kept still for much longer. */
export const holdLimitMs = 60_000;

/** `use` gets a signal that also ends when a machine has been kept still for long enough: then Unavailable. */
export async function withinHold<Result>(
  clock: Clock,
  signal: AbortSignal,
  use: (signal: AbortSignal) => Promise<Result>,
  limitMs = holdLimitMs,
): Promise<Result> {
  const limit = new AbortController();
  const cancel = clock.after(limitMs, () => {
    limit.abort(
      new StrataError(
        "Unavailable",
        `what was to be done while the virtual machine is kept still took longer than ${limitMs / 1000} s; it goes on as before. Stop the instance and ask again`,
      ),
    );
  });
  try {
    return await use(AbortSignal.any([signal, limit.signal]));
  } finally {
    cancel();
  }
}
