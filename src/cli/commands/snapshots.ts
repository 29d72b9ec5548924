/** Snapshots of volumes and of instances: taking them, going back to them, making new ones of them. */
import type { Client } from "../../client/client.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { type Snapshot, snapshotKind } from "../../kinds/snapshot.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { snapshotForm, volumeForm } from "../show-volumes.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { settled } from "./instances.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";
import { machineLike } from "./machine-like.ts";

const group = "Volumes";
const snapshotArgument = { name: "<snapshot>", summary: "its name", completes: "snapshots" } as const;

export const snapshotCommands: readonly CommandSpec[] = [
  {
    path: "snapshot create",
    group,
    summary:
      "Keep a volume, or an instance with all its disks, as it is at this moment, also while it is in use",
    arguments: [
      { name: "<of>", summary: "name of a volume; with --instance, of an instance", completes: "volumes" },
      { name: "<snapshot>", summary: "what it will be called" },
    ],
    options: [
      { flags: "--instance", summary: "of an instance: its root and all its volumes" },
      {
        flags: "--memory",
        summary: "of a virtual machine: its memory as well; a rollback brings it back running where it was",
      },
    ],
    examples: [
      "strata snapshot create records records-monday",
      "strata snapshot create lms before-upgrade --instance",
      "strata snapshot create build-server before-merge --instance --memory",
    ],
    run: create,
  },
  {
    path: "snapshot list",
    group,
    summary: "List snapshots",
    options: listOptions,
    examples: ["strata snapshot list"],
    run: (call) => listResources(call, "snapshots"),
  },
  {
    path: "snapshot show",
    group,
    summary: "Show a snapshot with all that is known of it",
    arguments: [snapshotArgument],
    examples: ["strata snapshot show before-upgrade"],
    run: (call) => showResource(call, "snapshots", call.args[0] ?? ""),
  },
  {
    path: "snapshot restore",
    group,
    summary: "Make a new volume, or a new instance, of what is in a snapshot",
    arguments: [snapshotArgument, { name: "<name>", summary: "of the new volume or instance" }],
    options: [
      { flags: "--size <size>", summary: "of the volume or root disk, when it should be larger" },
      { flags: "--instance <name>", summary: "a volume: attach it at once" },
      { flags: "--path <path>", summary: "a volume: where a container sees it (default: /mnt/NAME)" },
      { flags: "--cpus <number>", summary: "an instance: virtual CPUs (default: as in the snapshot)" },
      { flags: "--memory <size>", summary: "an instance: such as 2GiB (default: as in the snapshot)" },
      { flags: "--stopped", summary: "an instance: do not start it" },
    ],
    examples: [
      "strata snapshot restore records-monday records-again --instance lms",
      "strata snapshot restore before-upgrade lms-trial --memory 1GiB",
    ],
    run: restore,
  },
  {
    path: "snapshot rollback",
    group,
    summary:
      "Put a volume, or an instance with its disks, back to what it was: all that was written since is lost",
    arguments: [snapshotArgument],
    examples: ["strata snapshot rollback before-upgrade"],
    run: rollback,
  },
  {
    path: "snapshot delete",
    group,
    summary: "Delete snapshots; what was made of them stays",
    arguments: [{ ...snapshotArgument, name: "<snapshot...>" }],
    examples: ["strata snapshot delete records-monday"],
    run: (call) => deleteResources(call, "snapshots", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const kind = options.flag("instance") ? instanceKind : volumeKind;
  const { metadata } = await resolve(client, kind as typeof instanceKind, project, args[0] ?? "", signal);
  const of = options.flag("instance") ? { instance: metadata.name } : { volume: metadata.name };
  const spec = { ...of, ...(options.flag("memory") && { memory: true }) };
  const created = await client.create(snapshotKind, { project, name: args[1] ?? "", spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata snapshot list`");
  const taken = await awaitState(client, session, snapshotKind, created, ["ready", "failed"]);
  if (taken.status.consistency === "crash") {
    session.printer.note(
      "the guest agent did not answer: the snapshot is as a disk is after a power cut, not frozen",
    );
  }
  return tableOf(snapshotForm, taken);
}

async function restore(call: Call): Promise<Output> {
  const { session, args } = call;
  const client = await session.client();
  const snapshot = await resolve(client, snapshotKind, session.project, args[0] ?? "", session.signal);
  if (snapshot.spec.instance !== undefined) return clone(call, client, snapshot);
  return restoreVolume(call, client, snapshot);
}

async function restoreVolume(call: Call, client: Client, snapshot: Snapshot): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const { sizeMib, fileSystem } = snapshot.status;
  const spec = defined({
    sizeMib: options.mib("size") ?? sizeMib,
    fileSystem,
    source: { snapshot: snapshot.metadata.name },
    instance: options.text("instance"),
    path: options.text("path"),
  });
  const created = await client.create(volumeKind, { project, name: args[1] ?? "", spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata volume list`");
  const states = ["available", "attached", "attaching"] as const;
  return tableOf(volumeForm, await awaitState(client, session, volumeKind, created, states));
}

async function clone(call: Call, client: Client, snapshot: Snapshot): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const changes = defined({ diskMib: options.mib("size") });
  const source = { snapshot: snapshot.metadata.name };
  const spec = machineLike(snapshot.status.machine, call, { ...changes, source });
  const created = await client.create(instanceKind, { project, name: args[1] ?? "", spec }, { signal });
  session.onInterrupt(
    `interrupted; ${created.metadata.name} goes on in the background: see \`strata info ${created.metadata.name}\``,
  );
  return await settled(client, session, [created]);
}

async function rollback(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const snapshot = await resolve(client, snapshotKind, project, args[0] ?? "", signal);
  const { name } = snapshot.metadata;
  const { instance, volume, rollbacks } = snapshot.spec;
  const what =
    instance === undefined ? `volume ${volume}` : `instance ${instance} and the volumes it had then`;
  const whatHappens =
    snapshot.status.memoryBytes === undefined
      ? "and what runs with it is stopped and started again."
      : "and it goes on where it was then.";
  await session.confirm(
    `All that was written to ${what} since the snapshot ${name} (${snapshot.status.takenAt ?? ""}) will be lost, ` +
      `${whatHappens} Go on?`,
  );
  const holder =
    instance === undefined
      ? undefined
      : await client.get(instanceKind, { project, name: instance }, { signal });
  const awaits = holder?.spec.power === "running";
  const spec = { rollbacks: rollbacks + 1 };
  const asked = await client.patch(snapshotKind, { project, name }, { spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata snapshot list`");
  // Whether it goes on where it was is known once it has started.
  const settled = ({ status }: Snapshot) => !awaits || status.memoryUse !== "waiting";
  return tableOf(snapshotForm, await awaitState(client, session, snapshotKind, asked, ["ready"], settled));
}
