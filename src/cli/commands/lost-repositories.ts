/** `backup-repository delete --lost`: one that will not come back goes, and with it what nobody can read any more. */
import type { Client } from "../../client/client.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import {
  type BackupRepository,
  backupRepositoryKind,
  repositoryPlace,
} from "../../kinds/backup-repository.ts";
import { type BackupSchedule, backupScheduleKind } from "../../kinds/backup-schedule.ts";
import type { Ref } from "../../kinds/keys.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import type { Call, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson } from "../show.ts";
import { untilGone } from "./lost-pools.ts";

/** Names in a question. */
const namedInQuestion = 10;

interface Contents {
  backups: readonly Backup[];
  schedules: readonly BackupSchedule[];
}

export async function deleteLostRepositories(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const all = await Promise.all(
    args.map((text) => resolve(client, backupRepositoryKind, project, text, signal)),
  );
  const lost = await Promise.all(
    all.map(async (one) => [one, await contentsOf(client, one, signal)] as const),
  );
  await session.confirm(lost.map(([one, contents]) => warning(one, contents)).join("\n"));
  for (const [one, contents] of lost) await deleteLost(client, session, one, contents);
  const names = all.map(({ metadata }) => metadata.name).join(", ");
  return { type: "message", text: `deleted ${names}, and what was said to be in it`, json: asJson(all) };
}

/** Each step may have been done by an earlier try. */
async function deleteLost(
  client: Client,
  session: Session,
  { metadata, spec }: BackupRepository,
  { backups, schedules }: Contents,
): Promise<void> {
  const { signal } = session;
  const ref = metadata as Ref;
  if (!spec.lost) await client.patch(backupRepositoryKind, ref, { spec: { lost: true } }, { signal });
  for (const one of schedules) await client.delete(backupScheduleKind, one.metadata as Ref, { signal });
  for (const one of backups) await client.delete(backupKind, one.metadata as Ref, { signal });
  await untilGone(client, session, backupKind as Kind, backups as readonly Resource[]);
  await client.delete(backupRepositoryKind, ref, { signal });
}

async function contentsOf(
  client: Client,
  { metadata: { name, project = "" } }: BackupRepository,
  signal: AbortSignal,
): Promise<Contents> {
  const [backups, schedules] = await Promise.all([
    client.list(backupKind, { project }, { signal }),
    client.list(backupScheduleKind, { project }, { signal }),
  ]);
  return {
    backups: backups.items.filter(({ spec }) => spec.repository === name),
    schedules: schedules.items.filter(({ spec }) => spec.repository === name),
  };
}

function warning(repository: BackupRepository, { backups, schedules }: Contents): string {
  const named = [
    ...schedules.map(({ metadata }) => `schedule ${metadata.name}`),
    ...backups.map(({ metadata }) => `backup ${metadata.name}`),
  ];
  const more = named.length > namedInQuestion ? ` and ${named.length - namedInQuestion} more` : "";
  const what = named.length === 0 ? "nothing" : `${named.slice(0, namedInQuestion).join(", ")}${more}`;
  return (
    `Backup repository ${repository.metadata.name} is said to be lost for good. Deleted with it: ${what}. ` +
    `Nothing in ${repositoryPlace(repository)} is touched: should it come back, whoever has its key can read it. Go on?`
  );
}
