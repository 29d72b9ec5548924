import type { Clock } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { LxcHost } from "./lxc-host.ts";
import type { HostCommand } from "./sealed.ts";

/** How the sessions (exec, console) reach a guest of the driver. */
export interface LxcAccess {
  lxcPath: string;
  clock: Clock;
  host(): Promise<LxcHost>;
  uidOf(handle: JsonObject): Uid;
  /** @throws Unavailable when the guest does not run. */
  runningUid(handle: JsonObject): Promise<Uid>;
  /** Of LXC's monitor, in whose network namespace its command socket is. @throws Unavailable. */
  monitorPid(uid: Uid): Promise<number>;
}

/** A program of LXC's with its arguments, wrapped so that it finds the monitor of the guest. */
export async function commandFor(
  access: LxcAccess,
  program: "lxcAttach" | "lxcConsole",
  uid: Uid,
  args: readonly string[],
): Promise<HostCommand> {
  const host = await access.host();
  const netns = `/proc/${await access.monitorPid(uid)}/ns/net`;
  const find = [`--net=${netns}`, "--", host[program], "-P", access.lxcPath, "-n", uid];
  return { bash: host.bash, file: host.nsenter, args: [...find, ...args] };
}
