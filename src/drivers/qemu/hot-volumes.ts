/**
 * Volumes that come and go while a machine runs: disks on its virtio-scsi controller. What is wanted is recorded before it
 * is done, and forgotten after it is gone, so that a repeated call, the next start and a removal find everything there is.
 *
 * The guest is told of a removal and not asked: a disk is gone when `detach` returns. Where the guest's agent answers, a
 * file system that is mounted from it is found and the removal refused.
 *
 * Everything here is called with the guest's lock held.
 */
import { stat } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../../core/json.ts";
import type { GuestVolume } from "../driver.ts";
import { diskNodes, hotDisk, scsiControllerId } from "./command-line.ts";
import { isBeingCopied, sizesOf } from "./disk-copies.ts";
import type { GuestRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { supportsDirect } from "./launch.ts";
import { dropQuietly, namesOf, peripherals } from "./machine-objects.ts";
import type { QmpClient } from "./qmp-client.ts";
import { validateGuest } from "./validate-guest.ts";

/** Mount points, in the guest, of the disk with this serial number; empty also where nobody can know. */
export type MountedInGuest = (serial: string, signal: AbortSignal) => Promise<readonly string[]>;

const releaseMs = 5_000;
const releasePollMs = 20;

export class HotVolumes {
  readonly #guest: GuestLifecycle;
  readonly #mounted: MountedInGuest;

  readonly #clock: Clock;

  constructor(guest: GuestLifecycle, clock: Clock, mounted: MountedInGuest) {
    this.#guest = guest;
    this.#clock = clock;
    this.#mounted = mounted;
  }

  async attach(volume: GuestVolume, signal: AbortSignal): Promise<void> {
    const known = await this.#guest.files.readGuest();
    if (known === undefined) {
      const { uid } = this.#guest.files;
      throw new StrataError("NotFound", `the virtual machine ${uid} does not exist on this host`);
    }
    const others = (known.spec.volumes ?? []).filter(({ id }) => id !== volume.id);
    const record = { ...known, spec: validateGuest({ ...known.spec, volumes: [...others, volume] }) };
    await this.#guest.files.writeGuest(record);
    if (!(await this.#runs())) return;
    try {
      await this.#plug(volume, signal);
    } catch (error) {
      await this.#take(volume.id).catch(() => {}); // the caller is told of the first failure
      await this.#guest.files.writeGuest({ ...known, spec: { ...known.spec, volumes: others } });
      throw error;
    }
  }

  async detach({ id }: Pick<GuestVolume, "id">, signal: AbortSignal): Promise<void> {
    const known = await this.#guest.files.readGuest();
    if (known === undefined) return;
    if (await this.#runs()) {
      const mounted = await this.#mounted(id, signal);
      if (mounted.length > 0) {
        throw new StrataError(
          "Conflict",
          `the virtual machine has the volume mounted at ${mounted.slice(0, 3).join(", ")}; unmount it there first`,
        );
      }
      await this.#guest.withMonitor((monitor) => untouchedByCopies(monitor, "detached"), { signal });
      await this.#take(id);
    }
    await this.#guest.files.writeGuest(without(known, id));
  }

  async #runs(): Promise<boolean> {
    return (await this.#guest.look()).state === "running";
  }

  async #plug(volume: GuestVolume, signal: AbortSignal): Promise<void> {
    const { id, path } = volume;
    const { node, device, opaque } = diskNodes(id);
    const there = await this.#guest.withMonitor(
      async (monitor) => {
        const devices = await namesOf(monitor, peripherals);
        if (!devices.has(scsiControllerId)) {
          throw new StrataError(
            "Unsupported",
            "the virtual machine was started by an earlier version, without a place for volumes; restart it",
          );
        }
        if (devices.has(device)) return true;
        // What a predecessor that was killed in between left.
        await dropBackEnd(monitor, id);
        return false;
      },
      { signal },
    );
    if (!there) {
      await this.#guest.passDescriptor(path, opaque, signal);
      const direct = await supportsDirect(path);
      await this.#guest.withMonitor(
        async (monitor) => {
          const [set] = await descriptorSets(monitor, opaque);
          if (set === undefined) throw new StrataError("Internal", "QEMU has lost the volume's descriptor");
          const disk = hotDisk(volume, { set, direct });
          await monitor.execute("blockdev-add", disk.node);
          await monitor.execute("device_add", disk.device);
        },
        { signal },
      );
      return;
    }
    const sizeBytes = await sizeOf(path);
    await this.#guest.withMonitor(
      async (monitor) => {
        if ((await sizesOf(monitor)).get(node) === sizeBytes) return;
        await untouchedByCopies(monitor, "grown");
        await monitor.execute("block_resize", { "node-name": node, size: sizeBytes });
      },
      { signal },
    );
  }

  async #take(id: string): Promise<void> {
    const { device } = diskNodes(id);
    await this.#guest.withMonitor(async (monitor) => {
      await dropQuietly(monitor.execute("device_del", { id: device }));
      // What the guest had asked of the disk ends first.
      for (const deadline = this.#clock.monotonicMs() + releaseMs; ; ) {
        try {
          return await dropBackEnd(monitor, id);
        } catch (error) {
          if (!hasCode(error, "Unavailable") || this.#clock.monotonicMs() >= deadline) throw error;
        }
        await this.#clock.sleep(releasePollMs);
      }
    });
  }
}

/** @throws Unavailable while disks of the machine are being copied. */
async function untouchedByCopies(monitor: QmpClient, change: string): Promise<void> {
  if (!(await isBeingCopied(monitor))) return;
  throw new StrataError(
    "Unavailable",
    `the volume is being copied, for a snapshot or a backup; it is ${change} when that is complete`,
  );
}

/** @throws Unavailable when QEMU still uses it. */
async function dropBackEnd(monitor: QmpClient, id: string): Promise<void> {
  const { node, opaque } = diskNodes(id);
  const nodes = objects(await monitor.execute("query-named-block-nodes", { flat: true }));
  if (nodes.some((each) => each["node-name"] === node)) {
    await monitor.execute("blockdev-del", { "node-name": node }).catch((cause) => {
      throw new StrataError("Unavailable", "QEMU still uses the volume", { cause });
    });
  }
  for (const set of await descriptorSets(monitor, opaque)) {
    await monitor.execute("remove-fd", { "fdset-id": set });
  }
}

async function descriptorSets(monitor: QmpClient, opaque: string): Promise<number[]> {
  return objects(await monitor.execute("query-fdsets")).flatMap((set) =>
    objects(set.fds ?? []).some((fd) => fd.opaque === opaque) && typeof set["fdset-id"] === "number"
      ? [set["fdset-id"]]
      : [],
  );
}

function without(record: GuestRecord, id: string): GuestRecord {
  const volumes = (record.spec.volumes ?? []).filter((volume) => volume.id !== id);
  return { ...record, spec: { ...record.spec, volumes } };
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path)).size;
}

function objects(value: Json): JsonObject[] {
  return Array.isArray(value) ? value.filter((each) => isJsonObject(each)) : [];
}
