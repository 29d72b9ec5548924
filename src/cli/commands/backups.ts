/** Backups: taking and testing them, and getting volumes, instances and files back. */
import { access, rename, rm } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import type { Client } from "../../client/client.ts";
import { receiveAll } from "../../client/receive-all.ts";
import { toTimestamp } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { type InstanceSpec, instanceKind } from "../../kinds/instance.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { backupForm } from "../show-backups.ts";
import { volumeForm } from "../show-volumes.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { receive } from "./export-image.ts";
import { settled } from "./instances.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";
import { machineLike } from "./machine-like.ts";

const group = "Backups";
const backupArgument = { name: "<backup>", summary: "its name", completes: "backups" } as const;
const pathArgument = { name: "<path>", summary: "of the file, from the top of the volume or root" } as const;
const inVolume = {
  flags: "--volume <name>",
  summary: "of an instance's backup: in this of its volumes (default: in its root)",
} as const;

export const backupCommands: readonly CommandSpec[] = [
  {
    path: "backup create",
    group,
    summary:
      "Keep a volume, or an instance with all its disks, as it is at this moment in a backup repository, also while it is in use",
    arguments: [
      { name: "<of>", summary: "name of a volume; with --instance, of an instance", completes: "volumes" },
      { name: "[backup]", summary: "what it will be called (default: after that and the time)" },
    ],
    options: [
      { flags: "--instance", summary: "of an instance: its root and all its volumes" },
      { flags: "--repository <name>", summary: "where it is kept (default: the project's only one)" },
    ],
    examples: [
      "strata backup create records --repository nas",
      "strata backup create records before-exams --repository nas",
      "strata backup create lms lms-monday --instance",
    ],
    run: create,
  },
  {
    path: "backup list",
    group,
    summary: "List backups: how much was read, how much was new, when they were tested",
    options: listOptions,
    examples: ["strata backup list"],
    run: (call) => listResources(call, "backups"),
  },
  {
    path: "backup show",
    group,
    summary: "Show all about a backup",
    arguments: [backupArgument],
    examples: ["strata backup show before-exams"],
    run: (call) => showResource(call, "backups", call.args[0] ?? ""),
  },
  {
    path: "backup verify",
    group,
    summary:
      "Restore a backup for a test, check its file systems, and read all of its repository; with --boot, also start it",
    arguments: [backupArgument],
    options: [
      {
        flags: "--boot",
        summary: "an instance: also start it in a network without a way out, and remove it again",
      },
      {
        flags: "--boot-command <command>",
        summary:
          "a shell command inside that succeeds when it is up (default: what the instance says of itself)",
      },
    ],
    examples: [
      "strata backup verify before-exams",
      "strata backup verify lms-monday --boot",
      "strata backup verify lms-monday --boot --boot-command 'curl -fs http://localhost/login'",
    ],
    run: verify,
  },
  {
    path: "backup restore",
    group,
    summary: "Make a new volume, or a new instance, of a backup",
    arguments: [backupArgument],
    options: [
      { flags: "--as <name>", summary: "of the new volume or instance" },
      { flags: "--volume <name>", summary: "of an instance's backup: this one of its volumes alone" },
      { flags: "--size <size>", summary: "of the volume or root disk, when it should be larger" },
      { flags: "--instance <name>", summary: "a volume: attach it at once; an instance: the same as --as" },
      { flags: "--path <path>", summary: "a volume: where a container sees it (default: /mnt/NAME)" },
      {
        flags: "--pool <name>",
        summary: "a volume: the storage pool that it lies in (default: the daemon's directory)",
      },
      { flags: "--image <name>", summary: "an instance: what its root becomes (default: as the backup)" },
      { flags: "--network <name>", summary: "an instance: its network (default: as in the backup)" },
      { flags: "--cpus <number>", summary: "an instance: virtual CPUs (default: as in the backup)" },
      { flags: "--memory <size>", summary: "an instance: such as 2GiB (default: as in the backup)" },
      { flags: "--stopped", summary: "an instance: do not start it" },
    ],
    examples: [
      "strata backup restore before-exams --as records-again",
      "strata backup restore lms-monday --as lms-again --network lab",
      "strata backup restore lms-monday --volume records --as records-again",
    ],
    run: restore,
  },
  {
    path: "backup cat",
    group,
    summary: "Print one file of a backup",
    arguments: [backupArgument, pathArgument],
    options: [inVolume],
    examples: [
      "strata backup cat before-exams /grades/2026.csv",
      "strata backup cat lms-monday /etc/hosts",
      "strata backup cat lms-monday /grades/2026.csv --volume records",
    ],
    run: cat,
  },
  {
    path: "backup restore-file",
    group,
    summary: "Write one file of a backup to this machine",
    arguments: [
      backupArgument,
      pathArgument,
      { name: "<file>", summary: "of this machine; made anew", completes: "files" },
    ],
    options: [inVolume, { flags: "--force", summary: "replace a file that is there" }],
    examples: ["strata backup restore-file before-exams /grades/2026.csv grades.csv"],
    run: restoreFile,
  },
  {
    path: "backup delete",
    group,
    summary: "Delete backups, and what of them no other backup needs",
    arguments: [{ ...backupArgument, name: "<backup...>" }],
    examples: ["strata backup delete before-exams"],
    run: (call) => deleteResources(call, "backups", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal, clock } = session;
  const client = await session.client();
  const subject = await resolveSubject(call, client, args[0] ?? "");
  const repository = await repositoryName(call, client);
  const digits = toTimestamp(clock.now()).replace(/[^0-9]/g, "");
  const { volume, instance } = subject;
  const madeUp = `${(volume ?? instance ?? "").slice(0, 47)}-${digits.slice(0, 8)}-${digits.slice(8, 14)}`;
  const spec = { ...subject, repository };
  const created = await client.create(backupKind, { project, name: args[1] ?? madeUp, spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata backup list`");
  const saved = await awaitState(client, session, backupKind, created, ["ready"]);
  if (saved.status.consistency === "crash") {
    session.printer.note(
      "the guest agent did not answer: the backup is as a disk is after a power cut, not frozen",
    );
  }
  return tableOf(backupForm, saved);
}

/** The volume of that name; with --instance, the instance. */
export async function resolveSubject(
  { session, options }: Call,
  client: Client,
  name: string,
): Promise<{ volume?: string; instance?: string }> {
  const { project, signal } = session;
  if (!options.flag("instance")) {
    return { volume: (await resolve(client, volumeKind, project, name, signal)).metadata.name };
  }
  return { instance: (await resolve(client, instanceKind, project, name, signal)).metadata.name };
}

/** Of --repository, or the only one of the project. */
export async function repositoryName({ session, options }: Call, client: Client): Promise<string> {
  const given = options.text("repository");
  if (given !== undefined) return given;
  const { project, signal } = session;
  const { items } = await client.list(backupRepositoryKind, { project }, { signal });
  const [only, ...others] = items.map(({ metadata }) => metadata.name);
  if (only !== undefined && others.length === 0) return only;
  const message = only === undefined ? "there is none yet: `strata backup-repository create`" : "say which";
  throw new StrataError("Invalid", `a backup needs a repository; ${message}`, {
    fields: [
      { path: "--repository", message: "is missing", allowed: [only, ...others].join(", ") || "none" },
    ],
  });
}

/** Of --boot-command: for a shell inside. */
export function bootCommandOf({ options }: Call): string[] | undefined {
  const text = options.text("boot-command");
  return text === undefined ? undefined : ["sh", "-c", text];
}

async function verify(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const found = await resolve(client, backupKind, project, args[0] ?? "", signal);
  const { name } = found.metadata;
  const spec = {
    verifications: found.spec.verifications + 1,
    ...(options.flag("boot") && {
      bootTests: (found.spec.bootTests ?? 0) + 1,
      bootCommand: bootCommandOf(call) ?? null,
    }),
  };
  const asked = await client.patch(backupKind, { project, name }, { spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata backup list`");
  const done = ({ spec, status }: Backup) =>
    status.bootTest === undefined && (status.bootTests ?? 0) >= (spec.bootTests ?? 0);
  const tested = await awaitState(client, session, backupKind, asked, ["ready"], done);
  const wrong = tested.status.conditions.find(
    ({ type, status }) => type === "Verified" && status === "false",
  );
  if (session.wait && wrong) {
    const what = wrong.reason === "NotBooted" ? "does not come up" : "is not whole";
    throw new StrataError("Unavailable", `backup "${name}" ${what} (${wrong.reason}): ${wrong.message}`);
  }
  if (session.wait && tested.status.message !== "") {
    throw new StrataError("Unavailable", `backup "${name}" was not tested: ${tested.status.message}`);
  }
  return tableOf(backupForm, tested);
}

async function restore(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const backup = await resolve(client, backupKind, project, args[0] ?? "", signal);
  const volume = options.text("volume");
  const whole = backup.spec.instance !== undefined && volume === undefined;
  const name = options.text("as") ?? (whole ? options.text("instance") : undefined);
  if (name === undefined) {
    const what = whole ? "instance" : "volume";
    throw new StrataError(
      "Invalid",
      `name the new ${what} with --as NAME; the old one, if there is one, stays`,
    );
  }
  if (whole) return restoreInstance(call, client, backup, name);
  const { sizeMib, fileSystem } = backup.status.volumes?.find((one) => one.name === volume) ?? backup.status;
  const spec = defined({
    sizeMib: options.mib("size") ?? sizeMib,
    fileSystem,
    source: defined({ backup: backup.metadata.name, volume }),
    instance: options.text("instance"),
    path: options.text("path"),
    pool: options.text("pool"),
  });
  const created = await client.create(volumeKind, { project, name, spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata volume list`");
  const states = ["available", "attached", "attaching"] as const;
  return tableOf(volumeForm, await awaitState(client, session, volumeKind, created, states));
}

async function restoreInstance(call: Call, client: Client, backup: Backup, name: string): Promise<Output> {
  const { session, options } = call;
  const { project, signal } = session;
  const { name: of } = backup.metadata;
  const changes = defined({ diskMib: options.mib("size"), network: options.text("network") });
  const image = options.text("image") ?? of;
  const { subnet, ...machine } = backup.status.machine ?? {};
  const kept = { ...machine, ...(subnet === undefined || "network" in changes ? {} : { subnet }) };
  const spec = machineLike(kept as InstanceSpec, call, { ...changes, image, source: { backup: of } });
  const created = await client.create(instanceKind, { project, name, spec }, { signal });
  session.onInterrupt(`interrupted; ${name} goes on in the background: see \`strata info ${name}\``);
  return await settled(client, session, [created]);
}

async function cat(call: Call): Promise<Output> {
  const { session } = call;
  const channel = await openFile(call);
  const bytes = await receiveAll(channel, session.signal);
  session.streams.stdout.write(bytes);
  return { type: "done" };
}

async function restoreFile(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const path = resolvePath(session.cwd, args[2] ?? "");
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (exists && !options.flag("force")) {
    throw new StrataError("AlreadyExists", `${path} exists already; choose another name, or give --force`);
  }
  const channel = await openFile(call);
  const partial = `${path}.partial`;
  try {
    const sizeBytes = await receive(session, channel, partial);
    await rename(partial, path);
    return {
      type: "table",
      columns: ["FILE", "SIZE"],
      rows: [[path, formatBytes(sizeBytes)]],
      empty: "nothing",
      json: { file: path, sizeBytes },
    };
  } finally {
    channel.close();
    await rm(partial, { force: true });
  }
}

async function openFile({ session, args, options }: Call) {
  const client = await session.client();
  const { metadata } = await resolve(client, backupKind, session.project, args[0] ?? "", session.signal);
  const ref = { project: metadata.project ?? session.project, name: metadata.name };
  session.printer.progress("backup", "reading the backup for one file");
  const file = { path: args[1] ?? "", volume: options.text("volume") };
  return client.backupFile(ref, file, session.signal);
}
