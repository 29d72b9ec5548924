/** The host as it is: images, disks, networks and drivers of this machine. */
import { mkdtempDisposable, rm, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { systemClock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { type Logger, silentLogger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import { createDockerDriver } from "../drivers/docker/docker-driver.ts";
import { createEngineBuilder } from "../drivers/docker/engine-builder.ts";
import { createLxcDriver } from "../drivers/lxc/lxc-driver.ts";
import { createQemuDriver } from "../drivers/qemu/qemu-driver.ts";
import { createBackups } from "../host/backups/restic-backups.ts";
import { createBalancers } from "../host/balancers/haproxy-balancers.ts";
import { createDisks } from "../host/disks/create-disks.ts";
import { parseNetwork } from "../host/egress/allowed-addresses.ts";
import { createImageStore } from "../host/images/create-image-store.ts";
import { createBuildahBuilder } from "../host/images/dockerfile/buildah/buildah-builder.ts";
import { openCgroups } from "../host/kernel-cgroups.ts";
import { createKernelMeasurements } from "../host/measurements/kernel-measurements.ts";
import { createNetworks } from "../host/networks/kernel-networks.ts";
import { createPools } from "../host/pools/local-pools.ts";
import { probeKvm } from "../host/probes/kvm.ts";
import { fetchProbeKernel, findProbeKernel } from "../host/probes/probe-kernel.ts";
import type { Fingerprint } from "../kinds/host.ts";
import type { HostParts } from "./host-parts.ts";
import { ownBackupDir, type Settings } from "./settings.ts";

export async function realHostParts(settings: Settings, logger: Logger): Promise<HostParts> {
  const cgroups = await openCgroups({ clock: systemClock });
  const images = createImageStore({
    imageDir: settings.imageDir,
    idBase: settings.idBase,
    mirrors: settings.imageMirrors,
    networks: settings.imageNetworks.flatMap((network) => parseNetwork(network) ?? []),
    builders: [
      createEngineBuilder({
        namespace: settings.namespace,
        socketPath: settings.dockerSocket,
        network: settings.buildNetwork,
        cgroups,
        group: buildGroup(settings),
        clock: systemClock,
      }),
      createBuildahBuilder({
        directory: join(settings.imageDir, "buildah"),
        idBase: settings.idBase,
        network: settings.buildNetwork,
        cgroups,
        group: buildGroup(settings),
        clock: systemClock,
      }),
    ],
  });
  const disks = createDisks({ directory: join(settings.stateDir, "volumes"), images, clock: systemClock });
  const networks = createNetworks({
    config: settings,
    cgroups,
    clock: systemClock,
    logger: logger.child({ part: "networks" }),
  });
  const balancers = createBalancers({ config: settings, cgroups, clock: systemClock });
  const common = { host: settings, cgroups, clock: systemClock, random: systemRandom };
  return {
    drivers: [
      createLxcDriver({ ...common, logger: logger.child({ part: "lxc" }) }),
      createQemuDriver({
        ...common,
        logger: logger.child({ part: "qemu" }),
        proveKvm: (signal) => proveKvm(settings, signal),
      }),
      createDockerDriver({
        ...common,
        socketPath: settings.dockerSocket,
        logger: logger.child({ part: "docker" }),
      }),
    ],
    images,
    disks,
    backups: createBackups({
      directory: join(settings.stateDir, "backups"),
      roots: settings.backupDirs,
      ownRoot: settings.backupDirs.find((path) => path === ownBackupDir(settings)),
      s3Networks: settings.s3Networks.flatMap((network) => parseNetwork(network) ?? []),
      s3Authorities: settings.s3Authorities,
      cgroups,
      group: backupGroup(settings),
      clock: systemClock,
    }),
    pools: createPools({ own: [settings.stateDir, settings.imageDir] }),
    networks,
    measurements: createKernelMeasurements({ cgroups, stateDir: settings.stateDir }),
    balancers,
    // One that is elsewhere may be shared.
    removeUnusedImages: dirname(settings.imageDir) === (settings.ownDirectory ?? settings.stateDir),
    close: () => {
      balancers.close();
      networks.close();
    },
  };
}

function backupGroup({ namespace }: Settings): string {
  return `${namespace}.backups`;
}

function buildGroup({ namespace }: Settings): string {
  return `${namespace}.builds`;
}

/** liblxc keeps a directory of locks for each directory of containers, and never removes it. */
async function removeLxcLocks(stateDir: string): Promise<void> {
  const root = "/run/lxc";
  await rm(join(root, "lock", stateDir), { recursive: true, force: true });
  for (let path = dirname(join(root, "lock", stateDir)); path.startsWith(root); path = dirname(path)) {
    const removed = await rmdir(path).then(
      () => true,
      () => false, // others have something there
    );
    if (!removed) return;
  }
}

/** Leaves nothing, also where there is no daemon. */
export async function proveDocker(settings: Settings, signal: AbortSignal): Promise<Fingerprint> {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-docker-"));
  const driver = createDockerDriver({
    host: { namespace: settings.namespace, stateDir: directory.path },
    socketPath: settings.dockerSocket,
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  return await driver.fingerprint(signal);
}

/** With the kernel of any image that is here, else with Debian's. */
export async function proveKvm(settings: Settings, signal: AbortSignal) {
  const cacheDir = join(settings.stateDir, "probe");
  const kernel =
    (await findProbeKernel({ imageDir: settings.imageDir, cacheDir })) ??
    (await fetchProbeKernel(cacheDir, signal));
  if (kernel === undefined) throw new StrataError("Unavailable", "there is no kernel to prove KVM with yet");
  return await probeKvm({ kernel, clock: systemClock, cacheFile: join(cacheDir, "kvm.json"), signal });
}

/**
 * Takes away what stays on a host although no guest and no network is left: rules and settings of the kernel, and the
 * daemon's own control groups. No daemon may run.
 */
export async function removeHostTraces(
  settings: Settings,
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  const cgroups = await openCgroups({ clock: systemClock });
  const networks = createNetworks({ config: settings, cgroups, clock: systemClock, logger });
  const balancers = createBalancers({ config: settings, cgroups, clock: systemClock });
  for (const uid of await balancers.list()) await balancers.remove(uid);
  try {
    await networks.removeEverything(signal);
  } finally {
    networks.close();
  }
  const groups = [
    settings.namespace,
    `${settings.namespace}.monitors`,
    backupGroup(settings),
    buildGroup(settings),
  ];
  for (const group of groups) await cgroups.remove(group);
  await removeLxcLocks(settings.stateDir);
}
