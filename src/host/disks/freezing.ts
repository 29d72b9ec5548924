/** File systems that are being frozen by a tool whose daemon was killed: it cannot be called back, only waited for. */
import { readdir, readFile } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";

const waitMs = 30_000;
const pollMs = 20;

/** Nobody freezes anything below `directory` any more when this returns, so that what is frozen can be thawed. */
export async function untilNobodyFreezes(directory: string, clock: Clock): Promise<void> {
  for (const deadline = clock.monotonicMs() + waitMs; clock.monotonicMs() < deadline; ) {
    if (!(await isFreezing(directory))) return;
    await clock.sleep(pollMs);
  }
}

async function isFreezing(directory: string): Promise<boolean> {
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    // It may have ended meanwhile.
    const [program, verb, target] = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split(
      "\0",
    );
    if (program?.endsWith("fsfreeze") && verb === "--freeze" && target?.startsWith(`${directory}/`))
      return true;
  }
  return false;
}
