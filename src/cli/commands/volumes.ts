/** Volumes: disks that outlive instances. */
import { StrataError } from "../../core/errors.ts";
import { parseMib } from "../../core/units.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { mountPathOf, type Volume, volumeKind } from "../../kinds/volume.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { volumeForm } from "../show-volumes.ts";
import { awaitState } from "./await-state.ts";
import { createResource, defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";

const group = "Volumes";
const volumeArgument = { name: "<volume>", summary: "its name", completes: "volumes" } as const;
const pathOption = {
  flags: "--path <path>",
  summary: "where a container sees it (default: /mnt/NAME)",
} as const;

export const volumeCommands: readonly CommandSpec[] = [
  {
    path: "volume create",
    group,
    summary: "Create a disk that outlives instances",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--size <size>", summary: "its size, such as 20GiB" },
      {
        flags: "--file-system <type>",
        summary: "made on first use (default: ext4); none: an empty disk, for virtual machines only",
        choices: ["ext4", "xfs", "none"],
      },
      { flags: "--instance <name>", summary: "attach it at once" },
      pathOption,
      {
        flags: "--pool <name>",
        summary: "the storage pool that it lies in (default: the daemon's directory)",
      },
      {
        flags: "--allocation <kind>",
        summary: "full: take all of its space at once (default: thin)",
        choices: ["thin", "full"],
      },
      { flags: "--protected", summary: "refuse to delete it" },
    ],
    examples: [
      "strata volume create records --size 20GiB --protected",
      "strata volume create data --size 8GiB --instance lms --path /srv/data",
    ],
    run: create,
  },
  {
    path: "volume list",
    group,
    summary: "List volumes, instances' root disks as well",
    options: listOptions,
    examples: ["strata volume list"],
    run: (call) => listResources(call, "volumes"),
  },
  {
    path: "volume info",
    group,
    summary: "Show all about a volume",
    arguments: [volumeArgument],
    examples: ["strata volume info records"],
    run: (call) => showResource(call, "volumes", call.args[0] ?? ""),
  },
  {
    path: "volume attach",
    group,
    summary: "Attach a volume to an instance, also while it runs",
    arguments: [
      volumeArgument,
      { name: "<instance>", summary: "name or beginning of the id", completes: "instances" },
    ],
    options: [pathOption],
    examples: ["strata volume attach records lms --path /srv/records"],
    run: attach,
  },
  {
    path: "volume detach",
    group,
    summary: "Detach a volume; it keeps all that is on it",
    arguments: [volumeArgument],
    examples: ["strata volume detach records"],
    run: detach,
  },
  {
    path: "volume grow",
    group,
    summary: "Make a volume larger, also while it is in use",
    arguments: [volumeArgument, { name: "<size>", summary: "its new size, such as 40GiB" }],
    examples: ["strata volume grow records 40GiB"],
    run: grow,
  },
  {
    path: "volume protect",
    group,
    summary: "Refuse to delete a volume, or allow it again",
    arguments: [volumeArgument],
    options: [{ flags: "--off", summary: "allow it again" }],
    examples: ["strata volume protect records", "strata volume protect records --off"],
    run: protect,
  },
  {
    path: "volume delete",
    group,
    summary: "Delete volumes that are detached, with all that is on them",
    arguments: [{ ...volumeArgument, name: "<volume...>" }],
    examples: ["strata volume delete scratch"],
    run: (call) => deleteResources(call, "volumes", call.args),
  },
];

function create(call: Call): Promise<Output> {
  const { options } = call;
  const sizeMib = options.mib("size");
  if (sizeMib === undefined) {
    throw new StrataError("Invalid", "a volume needs a size", {
      fields: [{ path: "--size", message: "is missing", allowed: "a size such as 20GiB" }],
    });
  }
  const fileSystem = options.text("file-system") ?? "ext4";
  return createResource(call, volumeKind, volumeForm, {
    sizeMib,
    fileSystem: fileSystem === "none" ? undefined : fileSystem,
    instance: options.text("instance"),
    path: options.text("path"),
    pool: options.text("pool"),
    allocation: options.text("allocation"),
    protected: options.flag("protected") || undefined,
  });
}

async function attach(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const volume = await resolve(client, volumeKind, project, args[0] ?? "", signal);
  const instance = await resolve(client, instanceKind, project, args[1] ?? "", signal);
  const { name } = volume.metadata;
  const to = instance.metadata.name;
  const { instance: from } = volume.spec;
  if (from !== undefined && from !== to) {
    throw new StrataError(
      "Conflict",
      `volume "${name}" is attached to "${from}": \`strata volume detach ${name}\` takes it off`,
    );
  }
  const spec = defined({ instance: to, path: options.text("path") });
  const patched = await client.patch(volumeKind, { project, name }, { spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata volume list`");
  const running = instance.status.state === "running";
  const settled = running ? await awaitState(client, session, volumeKind, patched, ["attached"]) : patched;
  session.printer.note(whereIs(settled, instance.spec.type));
  return tableOf(volumeForm, settled);
}

function whereIs(volume: Volume, type: "vm" | "container"): string {
  const { device } = volume.status;
  if (type === "container") return `in the container it is ${device ?? mountPathOf(volume)}`;
  return device === undefined
    ? "the virtual machine has it when it starts"
    : `in the virtual machine it is ${device}; mount it there`;
}

async function detach(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const volume = await resolve(client, volumeKind, project, args[0] ?? "", signal);
  const { name, owner } = volume.metadata;
  if (volume.spec.role === "root") {
    throw new StrataError(
      "Conflict",
      `volume "${name}" is the root volume of instance "${owner?.name ?? ""}" and cannot be detached; delete the instance`,
    );
  }
  const patched = await client.patch(volumeKind, { project, name }, { spec: { instance: null } }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata volume list`");
  const settled = await awaitState(client, session, volumeKind, patched, ["available"]);
  return tableOf(volumeForm, settled);
}

async function grow(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const volume = await resolve(client, volumeKind, project, args[0] ?? "", signal);
  const { name } = volume.metadata;
  const sizeMib = parseMib(args[1] ?? "");
  const patched = await client.patch(volumeKind, { project, name }, { spec: { sizeMib } }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata volume list`");
  const { state } = patched.status;
  const settled =
    state === "attached" || state === "available"
      ? await awaitState(client, session, volumeKind, patched, ["attached", "available"])
      : patched;
  return tableOf(volumeForm, settled);
}

async function protect(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const volume = await resolve(client, volumeKind, project, args[0] ?? "", signal);
  const ref = { project, name: volume.metadata.name };
  const spec = { protected: !options.flag("off") };
  return tableOf(volumeForm, await client.patch(volumeKind, ref, { spec }, { signal }));
}
