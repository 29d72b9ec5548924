/** The host as it is: images, disks, networks and drivers of this machine. */
import { join } from "node:path";
import { systemClock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import { createDisks } from "../host/disks/create-disks.ts";
import { createImageStore } from "../host/images/create-image-store.ts";
import { openCgroups } from "../host/kernel-cgroups.ts";
import { createNetworks } from "../host/networks/kernel-networks.ts";
import type { HostParts } from "./host-parts.ts";
import type { Settings } from "./settings.ts";

export async function realHostParts(settings: Settings, logger: Logger): Promise<HostParts> {
  const cgroups = await openCgroups({ clock: systemClock });
  const images = createImageStore({ imageDir: settings.imageDir, idBase: settings.idBase });
  const disks = createDisks({ directory: join(settings.stateDir, "volumes"), images, clock: systemClock });
  const networks = createNetworks({
    config: settings,
    cgroups,
    clock: systemClock,
    logger: logger.child({ part: "networks" }),
  });
  return {
    drivers: [],
    images,
    disks,
    networks,
    close: () => networks.close(),
  };
}
