/** Snapshots of volumes. */
import { snapshotKind } from "../../kinds/snapshot.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { snapshotForm, volumeForm } from "../show-volumes.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources } from "./listings.ts";

const group = "Volumes";
const snapshotArgument = { name: "<snapshot>", summary: "its name", completes: "snapshots" } as const;

export const snapshotCommands: readonly CommandSpec[] = [
  {
    path: "snapshot create",
    group,
    summary: "Keep a volume as it is at this moment, also while it is in use",
    arguments: [
      { name: "<volume>", summary: "its name", completes: "volumes" },
      { name: "<snapshot>", summary: "what it will be called" },
    ],
    examples: ["strata snapshot create records records-monday"],
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
    path: "snapshot restore",
    group,
    summary: "Make a new volume of what is in a snapshot",
    arguments: [snapshotArgument, { name: "<volume>", summary: "the new volume's name" }],
    options: [
      { flags: "--size <size>", summary: "its size, when it should be larger" },
      { flags: "--instance <name>", summary: "attach it at once" },
      { flags: "--path <path>", summary: "where a container sees it (default: /mnt/NAME)" },
    ],
    examples: ["strata snapshot restore records-monday records-again --instance lms"],
    run: restore,
  },
  {
    path: "snapshot delete",
    group,
    summary: "Delete snapshots; volumes that were made of them stay",
    arguments: [{ ...snapshotArgument, name: "<snapshot...>" }],
    examples: ["strata snapshot delete records-monday"],
    run: (call) => deleteResources(call, "snapshots", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const volume = await resolve(client, volumeKind, project, args[0] ?? "", signal);
  const draft = { project, name: args[1] ?? "", spec: { volume: volume.metadata.name } };
  const created = await client.create(snapshotKind, draft, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata snapshot list`");
  const settled = await awaitState(client, session, snapshotKind, created, ["ready", "failed"]);
  if (settled.status.consistency === "crash") {
    session.printer.note(
      "the guest agent did not answer: the snapshot is as a disk is after a power cut, not frozen",
    );
  }
  return tableOf(snapshotForm, settled);
}

async function restore(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const snapshot = await resolve(client, snapshotKind, project, args[0] ?? "", signal);
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
