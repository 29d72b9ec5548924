import { newUid } from "../core/ids.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance, InstanceStatus } from "../kinds/instance.ts";
import type { VolumePart } from "../kinds/snapshot.ts";
import {
  copiedVolumeName,
  type Volume,
  type VolumeSpec,
  volumeKind,
  volumeSpecSchema,
} from "../kinds/volume.ts";
import type { World } from "./hooks.ts";

/** What comes with an instance that is made of another's disks, in the commit that creates it. */
export interface Origin {
  status: Partial<InstanceStatus>;
  volumes: readonly Volume[];
  /** Of a backup, unless it is there: what its root becomes. */
  image?: Image | undefined;
}

/** A new volume with what `source` has of an old one, for the instance: it outlives it, as volumes do. */
export function volumeOf(
  instance: Instance,
  part: VolumePart,
  { source, host }: { source: VolumeSpec["source"]; host: string | undefined },
  world: World,
): Volume {
  const { name, project = "", createdAt } = instance.metadata;
  return {
    kind: volumeKind.name,
    metadata: {
      name: copiedVolumeName(name, part.name),
      project,
      uid: newUid(world.random),
      revision: 0,
      generation: 1,
      labels: {},
      createdAt,
      finalizers: [...volumeKind.finalizers],
    },
    spec: volumeSpecSchema.parse({
      sizeMib: part.sizeMib,
      ...(part.fileSystem === undefined ? {} : { fileSystem: part.fileSystem }),
      source,
      instance: name,
      ...(part.pool === undefined ? {} : { pool: part.pool }),
      path: part.path ?? `/mnt/${part.name}`,
    }),
    status: {
      ...volumeKind.initialStatus(),
      ...(host === undefined ? {} : { host }),
      ...(part.pool === undefined ? {} : { pool: part.pool }),
      message: "its source is being copied",
    },
  };
}
