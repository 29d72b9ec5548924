/** Volumes for tests of drivers: real files and mounts in a directory of their own. */
import { join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { newUid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import type { GuestVolume } from "../src/drivers/driver.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { Disks, IdRange } from "../src/host/disks/disks.ts";

const signal = new AbortController().signal;
const noImage = () => Promise.reject(new Error("no image is needed"));

export class TestVolumes {
  readonly disks: Disks;

  constructor(directory: string) {
    const images = { containerTree: noImage, vmDisk: noImage };
    this.disks = createDisks({ directory: join(directory, "volumes"), images, clock: systemClock });
  }

  async disk(sizeMib = 64): Promise<GuestVolume> {
    const id = newUid(systemRandom);
    return { type: "disk", id, path: await this.disks.lendData({ uid: id, sizeMib }, signal) };
  }

  async mount(ids: IdRange, sizeMib = 64): Promise<GuestVolume> {
    const id = newUid(systemRandom);
    const request = { uid: id, sizeMib, fileSystem: "ext4" } as const;
    const path = await this.disks.mountData(request, ids, signal);
    return { type: "mount", id, path, target: `/srv/volumes/${id}` };
  }

  drop({ id }: GuestVolume): Promise<void> {
    return this.disks.remove(id, signal);
  }

  async dispose(): Promise<void> {
    for (const uid of await this.disks.list()) await this.disks.remove(uid, signal);
  }
}
