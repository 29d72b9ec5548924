import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import type { GuestSpec } from "../driver.ts";
import type { GuestFiles } from "./guest-files.ts";
import type { LxcHost } from "./lxc-host.ts";

/** How changes of a guest (cards, resize) reach what the driver keeps. */
export interface LxcChanges {
  /** @throws Invalid for a handle that is not this driver's. */
  files(handle: JsonObject): GuestFiles;
  isRunning(uid: Uid): Promise<boolean>;
  /** Of the running guest's init; undefined when another process has its id now. */
  initPid(files: GuestFiles): Promise<number | undefined>;
  /** The group that holds the guest's limits. */
  group(uid: Uid): string;
  host(): Promise<LxcHost>;
  cgroups: Cgroups;
}

/** Of the process: a driver and its successor may exist side by side for a moment. */
const specLock = new KeyedLock();

/** Runs a change of what is recorded of a guest, one at a time. */
export function changing<Result>(files: GuestFiles, change: () => Promise<Result>): Promise<Result> {
  return specLock.run(files.dir, change);
}

/** @throws NotFound. */
export async function requireSpec(files: GuestFiles): Promise<GuestSpec> {
  const guest = await files.readSpec();
  if (guest === undefined) {
    throw new StrataError("NotFound", "the container does not exist on this host, so it cannot be changed");
  }
  return guest;
}
