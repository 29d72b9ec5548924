/** Schedules of backups. */
import { backupScheduleKind } from "../../kinds/backup-schedule.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { backupScheduleForm } from "../show-backups.ts";
import { bootCommandOf, repositoryName, resolveSubject } from "./backups.ts";
import { createResource, defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";

const group = "Backups";
const scheduleArgument = { name: "<schedule>", summary: "its name", completes: "backup-schedules" } as const;

export const backupScheduleCommands: readonly CommandSpec[] = [
  {
    path: "backup-schedule create",
    group,
    summary: "Have backups of a volume, or of an instance, made regularly, tested, and removed in time",
    arguments: [
      { name: "<name>", summary: "its name" },
      { name: "<of>", summary: "name of a volume; with --instance, of an instance", completes: "volumes" },
    ],
    options: [
      { flags: "--instance", summary: "of an instance: its root and all its volumes" },
      { flags: "--repository <name>", summary: "where they are kept (default: the project's only one)" },
      { flags: "--every <period>", summary: "default: day", choices: ["hour", "day", "week"] },
      {
        flags: "--at <time>",
        summary: "local time: :MM of each hour, HH:MM of each day (default: 02:30), `DAY HH:MM` of each week",
      },
      { flags: "--time-zone <zone>", summary: "such as Europe/Berlin (default: UTC)" },
      { flags: "--keep-last <number>", summary: "the newest" },
      { flags: "--keep-daily <number>", summary: "the newest of each of so many days (default: 7)" },
      { flags: "--keep-weekly <number>", summary: "the newest of each of so many weeks (default: 4)" },
      { flags: "--keep-monthly <number>", summary: "the newest of each of so many months (default: 12)" },
      { flags: "--verify-every <days>", summary: "restore the newest for a test; 0: never (default: 7)" },
      {
        flags: "--verify-boot",
        summary: "an instance: then also start it in a network without a way out, and remove it again",
      },
      { flags: "--boot-command <command>", summary: "a shell command inside that succeeds when it is up" },
    ],
    examples: [
      "strata backup-schedule create nightly records --repository nas --at 02:30 --time-zone Europe/Berlin",
      "strata backup-schedule create lms-nightly lms --instance --keep-daily 14 --verify-boot",
      "strata backup-schedule create hourly records --every hour --at :15 --keep-last 24",
    ],
    run: create,
  },
  {
    path: "backup-schedule list",
    group,
    summary: "List schedules of backups",
    options: listOptions,
    examples: ["strata backup-schedule list"],
    run: (call) => listResources(call, "backup-schedules"),
  },
  {
    path: "backup-schedule show",
    group,
    summary: "Show all about a schedule of backups",
    arguments: [scheduleArgument],
    examples: ["strata backup-schedule show nightly"],
    run: (call) => showResource(call, "backup-schedules", call.args[0] ?? ""),
  },
  {
    path: "backup-schedule suspend",
    group,
    summary: "Make no backups and remove none, or go on again",
    arguments: [scheduleArgument],
    options: [{ flags: "--off", summary: "go on again" }],
    examples: ["strata backup-schedule suspend nightly", "strata backup-schedule suspend nightly --off"],
    run: suspend,
  },
  {
    path: "backup-schedule delete",
    group,
    summary: "Delete schedules; the backups that they made stay",
    arguments: [{ ...scheduleArgument, name: "<schedule...>" }],
    examples: ["strata backup-schedule delete nightly"],
    run: (call) => deleteResources(call, "backup-schedules", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const client = await session.startedClient();
  const subject = await resolveSubject(call, client, args[1] ?? "");
  const rules = ["last", "daily", "weekly", "monthly"] as const;
  const given = rules.map((rule) => [rule, options.count(`keep-${rule}`)] as const);
  const none = given.every(([, count]) => count === undefined);
  return createResource(call, backupScheduleKind, backupScheduleForm, {
    ...subject,
    repository: await repositoryName(call, client),
    every: options.text("every"),
    at: options.text("at") ?? "02:30",
    timeZone: options.text("time-zone"),
    keep: none ? { daily: 7, weekly: 4, monthly: 12 } : defined(Object.fromEntries(given)),
    verifyEveryDays: options.count("verify-every"),
    verifyBoot: options.flag("verify-boot") ? true : undefined,
    bootCommand: bootCommandOf(call),
  });
}

async function suspend(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const { metadata } = await resolve(client, backupScheduleKind, project, args[0] ?? "", signal);
  const spec = { suspended: !options.flag("off") };
  const ref = { project, name: metadata.name };
  return tableOf(backupScheduleForm, await client.patch(backupScheduleKind, ref, { spec }, { signal }));
}
