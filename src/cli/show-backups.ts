/** How backups, their repositories and schedules look in tables. Pure. */
import { formatBytes } from "../core/units.ts";
import type { Backup } from "../kinds/backup.ts";
import { type BackupRepository, repositoryPlace } from "../kinds/backup-repository.ts";
import type { BackupSchedule, Keep } from "../kinds/backup-schedule.ts";
import type { Condition } from "../kinds/kind.ts";
import type { Cell } from "./output.ts";
import { stateCell, type TableForm } from "./show.ts";

export const backupForm: TableForm<Backup> = {
  columns: ["NAME", "STATE", "OF", "REPOSITORY", "TAKEN", "CONSISTENCY", "READ", "NEW", "TESTED", "MESSAGE"],
  row: (backup) => {
    const { metadata, spec, status } = backup;
    const { progress } = status;
    const percent = progress?.fraction === undefined ? "" : ` ${Math.floor(progress.fraction * 100)} %`;
    return [
      metadata.name,
      stateCell(backup, `${status.state}${status.state === "saving" ? percent : ""}`),
      subjectText(spec),
      spec.repository,
      status.takenAt ?? "",
      status.consistency ?? "",
      status.readBytes === undefined ? "" : formatBytes(status.readBytes),
      status.addedBytes === undefined ? "" : formatBytes(status.addedBytes),
      testedCell(status.conditions, "Verified", status.verifiedAt),
      status.message,
    ];
  },
};

export const backupRepositoryForm: TableForm<BackupRepository> = {
  columns: ["NAME", "STATE", "WHERE", "HOST", "CHECKED", "MESSAGE"],
  row: (repository) => {
    const { metadata, status } = repository;
    return [
      metadata.name,
      stateCell(repository, status.state),
      repositoryPlace(repository),
      status.host ?? "",
      testedCell(status.conditions, "Intact", status.checkedAt),
      status.message,
    ];
  },
};

export const backupScheduleForm: TableForm<BackupSchedule> = {
  columns: ["NAME", "STATE", "OF", "REPOSITORY", "WHEN", "KEEPS", "TESTED EVERY", "LAST", "NEXT", "MESSAGE"],
  row: (schedule) => {
    const { metadata, spec, status } = schedule;
    const { every, at, timeZone, verifyEveryDays: days } = spec;
    return [
      metadata.name,
      stateCell(schedule, status.state),
      subjectText(spec),
      spec.repository,
      `every ${every} at ${at}${every === "hour" ? "" : ` ${timeZone}`}`,
      keepText(spec.keep),
      days === 0 ? "never" : `${days} ${days === 1 ? "day" : "days"}`,
      status.lastDueAt ?? "",
      status.nextDueAt ?? "",
      status.message,
    ];
  },
};

export function keepText(keep: Keep): string {
  return Object.entries(keep)
    .filter(([, count]) => count > 0)
    .map(([rule, count]) => `${count} ${rule}`)
    .join(", ");
}

function subjectText({ volume, instance }: Pick<Backup["spec"], "volume" | "instance">): string {
  return instance === undefined ? `volume ${volume ?? ""}` : `instance ${instance}`;
}

function testedCell(conditions: readonly Condition[], type: string, at: string | undefined): Cell {
  const found = conditions.find((condition) => condition.type === type);
  if (!found) return "no";
  if (found.status === "true") return { text: at ?? "yes", tone: "good" };
  return { text: found.reason === "NotBooted" ? "DOES NOT START" : "DAMAGED", tone: "bad" };
}
