/** `pool delete --lost`: a storage pool that will not come back goes, and with it what nobody can read any more. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { Ref } from "../../kinds/keys.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { snapshotKind } from "../../kinds/snapshot.ts";
import { type StoragePool, storagePoolKind } from "../../kinds/storage-pool.ts";
import { type Volume, volumeKind } from "../../kinds/volume.ts";
import type { Call, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson } from "../show.ts";
import { follow, patience } from "../watching.ts";

/** Names in a question. */
const namedInQuestion = 10;

interface Contents {
  volumes: readonly Volume[];
  snapshots: readonly Resource[];
}

export async function deleteLostPools(call: Call): Promise<Output> {
  const { session, args } = call;
  const { signal } = session;
  const client = await session.client();
  const pools = await Promise.all(args.map((text) => resolve(client, storagePoolKind, "", text, signal)));
  const lost = await Promise.all(
    pools.map(async (pool) => [pool, await contentsOf(client, pool, signal)] as const),
  );
  for (const [pool, contents] of lost) requireFree(pool, contents);
  await session.confirm(lost.map(([pool, contents]) => warning(pool, contents)).join("\n"));
  for (const [pool, contents] of lost) await deleteLost(client, session, pool, contents);
  const names = pools.map(({ metadata }) => metadata.name).join(", ");
  return { type: "message", text: `deleted ${names}, and what was in it`, json: asJson(pools) };
}

/** Each step may have been done by an earlier try. */
async function deleteLost(
  client: Client,
  session: Session,
  { metadata, spec }: StoragePool,
  { volumes, snapshots }: Contents,
): Promise<void> {
  const { signal } = session;
  const ref = { name: metadata.name };
  if (!spec.lost) await client.patch(storagePoolKind, ref, { spec: { lost: true } }, { signal });
  for (const one of snapshots) await client.delete(snapshotKind, one.metadata as Ref, { signal });
  for (const one of volumes) await client.delete(volumeKind, one.metadata as Ref, { signal });
  await untilGone(client, session, snapshotKind as Kind, snapshots);
  await untilGone(client, session, volumeKind as Kind, volumes as readonly Resource[]);
  await client.delete(storagePoolKind, ref, { signal });
}

async function contentsOf(client: Client, pool: StoragePool, signal: AbortSignal): Promise<Contents> {
  const { name } = pool.metadata;
  const [volumes, snapshots] = await Promise.all([
    client.list(volumeKind, {}, { signal }),
    client.list(snapshotKind, {}, { signal }),
  ]);
  return {
    volumes: volumes.items.filter(({ status }) => status.pool === name),
    snapshots: snapshots.items.filter(({ status }) =>
      [status, ...(status.volumes ?? [])].some((part) => part.pool === name),
    ) as Resource[],
  };
}

/** @throws Conflict naming all that stands against it; nothing has been changed then. */
function requireFree({ metadata }: StoragePool, { volumes }: Contents): void {
  const reasons = volumes.flatMap(({ metadata: { name, project }, spec, status }) => {
    const instance = spec.instance ?? status.instance;
    const help =
      instance === undefined ? undefined : `is attached to "${instance}" (strata volume detach ${name})`;
    const why = help ?? (spec.protected ? `is protected (strata volume protect ${name} --off)` : undefined);
    return why === undefined ? [] : [`volume "${name}" of project "${project}" ${why}`];
  });
  if (reasons.length === 0) return;
  const named = reasons.slice(0, namedInQuestion).join("; ");
  throw new StrataError("Conflict", `cannot delete storage pool "${metadata.name}": ${named}`);
}

function warning({ metadata, spec }: StoragePool, { volumes, snapshots }: Contents): string {
  const named = [
    ...volumes.map((one) => `volume ${nameOf(one as Resource)}`),
    ...snapshots.map((one) => `snapshot ${nameOf(one)}`),
  ];
  const more = named.length > namedInQuestion ? ` and ${named.length - namedInQuestion} more` : "";
  const what = named.length === 0 ? "nothing" : `${named.slice(0, namedInQuestion).join(", ")}${more}`;
  return (
    `Storage pool ${metadata.name} is said to be lost for good. Deleted with it: ${what}. ` +
    `Nothing in ${spec.path} is touched: should it come back, the files are there, and nobody knows of them. Go on?`
  );
}

function nameOf({ metadata }: Resource): string {
  return `${metadata.project}/${metadata.name}`;
}

export async function untilGone(
  client: Client,
  session: Session,
  kind: Kind,
  resources: readonly Resource[],
): Promise<void> {
  if (resources.length === 0) return;
  const uids = new Set<string>(resources.map(({ metadata }) => metadata.uid));
  let left: string[] = [];
  const look = (seen: ReadonlyMap<string, Resource>) => {
    left = [...seen].filter(([, { metadata }]) => uids.has(metadata.uid)).map(([key]) => key);
    return left.length === 0;
  };
  const waiting = () => `waiting for ${kind.plural} ${left.slice(0, namedInQuestion).join(", ")} to be gone`;
  await follow(client, kind, {}, patience(session), look, waiting);
}
