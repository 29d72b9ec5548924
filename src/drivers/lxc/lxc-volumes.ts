/**
 * Volumes that come and go while a container runs: the mount is moved into the container's own mounts by the script that
 * also brings it before init, at each start and reboot from inside (plug-cards.sh). A volume is recorded before it is
 * mounted and forgotten after it is gone, so each step may be repeated after a crash.
 */
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { run } from "../../host/run.ts";
import type { GuestSpec, GuestVolume, Volumes } from "../driver.ts";
import type { GuestFiles } from "./guest-files.ts";
import { changing, type LxcChanges, requireSpec } from "./lxc-changes.ts";
import { checkGuest } from "./lxc-config.ts";

/** The script's status when something in the guest uses the volume. */
const busy = 16;

export function lxcVolumes(changes: LxcChanges): Volumes<JsonObject> {
  return {
    takes: "mount",
    attach(handle, volume, signal) {
      signal.throwIfAborted();
      const files = changes.files(handle);
      return changing(files, () => attach(changes, files, volume, signal));
    },
    detach(handle, volume, signal) {
      signal.throwIfAborted();
      const files = changes.files(handle);
      return changing(files, () => detach(changes, files, volume, signal));
    },
  };
}

/** What the hook reads: a line for each volume, SOURCE, TARGET and the id of the guest's root, with tabs between. */
export function volumeLines({ root, volumes = [] }: Pick<GuestSpec, "root" | "volumes">): string {
  const base = root.type === "tree" ? root.idBase : 0;
  return volumes
    .map((volume) => (volume.type === "mount" ? `${volume.path}\t${volume.target}\t${base}\n` : ""))
    .join("");
}

async function attach(
  changes: LxcChanges,
  files: GuestFiles,
  volume: GuestVolume,
  signal: AbortSignal,
): Promise<void> {
  const guest = await requireSpec(files);
  const others = (guest.volumes ?? []).filter(({ id }) => id !== volume.id);
  const next = { ...guest, volumes: [...others, volume] };
  checkGuest(next);
  if (volume.type !== "mount" || guest.root.type !== "tree") return;
  await record(files, next);
  if (!(await changes.isRunning(guest.uid))) return;
  const { perl, volumeMounts } = await changes.host();
  const pid = await requireInit(changes, files);
  const args = [volumeMounts, "plug", String(pid), volume.path, volume.target, String(guest.root.idBase)];
  try {
    await run(perl, args, { signal });
  } catch (cause) {
    await record(files, { ...guest, volumes: others });
    signal.throwIfAborted();
    throw new StrataError(
      "Unavailable",
      `the volume cannot be mounted at ${volume.target} in the container`,
      {
        cause,
      },
    );
  }
}

async function detach(
  changes: LxcChanges,
  files: GuestFiles,
  { id }: Pick<GuestVolume, "id">,
  signal: AbortSignal,
): Promise<void> {
  const guest = await files.readSpec();
  const volume = guest?.volumes?.find((one) => one.id === id);
  if (guest === undefined || volume === undefined) return;
  if (await changes.isRunning(guest.uid)) {
    const { perl, volumeMounts } = await changes.host();
    const pid = await requireInit(changes, files);
    const args = [volumeMounts, "unplug", String(pid), volume.path];
    const { status } = await run(perl, args, { signal, expected: [0, busy] });
    if (status === busy) {
      throw new StrataError(
        "Conflict",
        "a program in the container uses the volume (an open file or a current directory there); end it first",
      );
    }
  }
  await record(files, { ...guest, volumes: (guest.volumes ?? []).filter((one) => one.id !== id) });
}

/** The list after the record: a start writes it anew, and a reboot from inside must not bring what was never recorded. */
async function record(files: GuestFiles, guest: GuestSpec): Promise<void> {
  await files.writeSpec(guest);
  await files.writeVolumes(volumeLines(guest));
}

async function requireInit(changes: LxcChanges, files: GuestFiles): Promise<number> {
  const pid = await changes.initPid(files);
  if (pid !== undefined) return pid;
  throw new StrataError("Unavailable", "the container is not running");
}
