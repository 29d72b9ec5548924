/** Volumes of a guest: the Engine's own, with the guest's uid in a label; they go with the guest. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { type Engine, toFilters } from "./engine.ts";
import type { DockerGuest } from "./guest-record.ts";
import { labels, ownerOf, volumeName } from "./labels.ts";

/** Idempotent. @throws Conflict when somebody else's volume has the name. */
export async function ensureVolumes(
  engine: Engine,
  namespace: string,
  { uid, config }: DockerGuest,
  signal: AbortSignal,
): Promise<void> {
  for (const { name } of config.volumes) {
    const Name = volumeName(namespace, uid, name);
    const Labels = { [labels.namespace]: namespace, [labels.uid]: uid };
    const found = await engine.ask(
      `make volume ${Name}`,
      async (docker, abortSignal) => {
        // One that exists stays as it is.
        await docker.createVolume({ Name, Labels, abortSignal });
        return await docker.getVolume(Name).inspect();
      },
      { signal },
    );
    if (ownerOf(found.Labels, namespace) === uid) continue;
    throw new StrataError(
      "Conflict",
      `there is a Docker volume ${Name} that Strata did not make; it is left alone, remove it to go on`,
    );
  }
}

/** All volumes of a guest, also those that its record does not know; the container must be gone. */
export async function removeVolumes(
  engine: Engine,
  namespace: string,
  uid: Uid,
  signal: AbortSignal,
): Promise<void> {
  const label = [`${labels.namespace}=${namespace}`, `${labels.uid}=${uid}`];
  const { Volumes } = await engine.ask(
    "list volumes",
    (docker, abortSignal) => docker.listVolumes({ filters: toFilters({ label }), abortSignal } as object),
    { signal },
  );
  for (const { Name } of Volumes ?? []) {
    await engine.call(
      `remove volume ${Name}`,
      (docker, abortSignal) => docker.getVolume(Name).remove({ abortSignal }),
      { signal, accept: [404] },
    );
  }
}
