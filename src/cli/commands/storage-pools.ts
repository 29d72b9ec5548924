/** Storage pools: directories that volumes lie in. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { Json } from "../../core/json.ts";
import { type StoragePool, storagePoolKind } from "../../kinds/storage-pool.ts";
import type { Call, CommandSpec, OptionValues, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson } from "../show.ts";
import { storagePoolForm, storagePoolTree } from "../show-storage-pools.ts";
import { follow, patience } from "../watching.ts";
import { defined, tableOf } from "./creation.ts";
import { deleteResources, listResources } from "./listings.ts";
import { deleteLostPools } from "./lost-pools.ts";

const group = "Volumes";
const poolArgument = { name: "<pool>", summary: "its name", completes: "storage-pools" } as const;
const limitOptions = [
  { flags: "--warn-percent <percent>", summary: "use from which on there is a warning (default: 80)" },
  {
    flags: "--max-overcommit <times>",
    summary: "how many times its capacity may be promised to volumes (default: 2)",
  },
] as const;

export const storagePoolCommands: readonly CommandSpec[] = [
  {
    path: "pool create",
    group,
    summary: "Let volumes lie in a directory of their own, such as a file system that is mounted for them",
    arguments: [
      { name: "<name>", summary: "its name" },
      { name: "<path>", summary: "an absolute path that exists and only root may change" },
    ],
    options: [
      { flags: "--type <type>", summary: "what it is (default: directory)", choices: ["directory", "nfs"] },
      {
        flags: "--reflink <need>",
        summary: "required: refuse what cannot share blocks (default: auto)",
        choices: ["auto", "required"],
      },
      ...limitOptions,
    ],
    examples: [
      "strata pool create fast /srv/fast --reflink required",
      "strata pool create archive /mnt/nas --type nfs --max-overcommit 1",
    ],
    run: create,
  },
  {
    path: "pool list",
    group,
    summary: "List storage pools: what they hold, and what they have promised",
    examples: ["strata pool list"],
    run: (call) => listResources(call, "storage-pools"),
  },
  {
    path: "pool show",
    group,
    summary: "Show a storage pool on each host: capacity, used, allocated, promised",
    arguments: [poolArgument],
    examples: ["strata pool show fast"],
    run: show,
  },
  {
    path: "pool set",
    group,
    summary: "Change when a storage pool warns, how much it may promise, and whether it is lost",
    arguments: [poolArgument],
    options: [
      ...limitOptions,
      {
        flags: "--lost <answer>",
        summary: "yes: it will not come back, and what is in it may be deleted; no: it may",
        choices: ["yes", "no"],
      },
    ],
    examples: [
      "strata pool set fast --warn-percent 90 --max-overcommit 1.5",
      "strata pool set fast --lost no",
    ],
    run: set,
  },
  {
    path: "pool delete",
    group,
    summary: "Delete storage pools that no volume and no snapshot is in",
    arguments: [{ ...poolArgument, name: "<pool...>" }],
    options: [
      {
        flags: "--lost",
        summary: "it will not come back: delete all volumes and snapshots in it too, without their files",
      },
    ],
    examples: ["strata pool delete fast", "strata pool delete fast --lost"],
    run: (call) =>
      call.options.flag("lost") ? deleteLostPools(call) : deleteResources(call, "storage-pools", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, options } = call;
  const [name = "", path = ""] = call.args;
  const client = await session.startedClient();
  const spec = defined({
    path,
    type: options.text("type"),
    reflink: options.text("reflink"),
    ...limits(options),
  });
  const created = await client.create(storagePoolKind, { name, spec }, { signal: session.signal });
  if (!session.wait) return tableOf(storagePoolForm, created);
  return tableOf(storagePoolForm, await looked(client, session, created));
}

/** Until a host has looked at it. What cannot be a pool is taken away again. @throws Invalid saying why. */
async function looked(client: Client, session: Session, pool: StoragePool): Promise<StoragePool> {
  const { name, uid } = pool.metadata;
  let last = pool;
  const look = (seen: ReadonlyMap<string, StoragePool>) => {
    last = [...seen.values()].find((one) => one.metadata.uid === uid) ?? last;
    return last.status.state !== "pending";
  };
  await follow(
    client,
    storagePoolKind,
    {},
    patience(session),
    look,
    () => `waiting for a host to look at ${name}`,
  );
  if (last.status.state === "ready") return last;
  await client.delete(storagePoolKind, { name }, { signal: session.signal });
  throw new StrataError("Invalid", `cannot create storage pool "${name}": ${last.status.message}`);
}

async function show({ session, args }: Call): Promise<Output> {
  const client = await session.client();
  const pool = await resolve(client, storagePoolKind, "", args[0] ?? "", session.signal);
  return { type: "tree", branches: storagePoolTree(pool), json: asJson(pool) };
}

async function set({ session, args, options }: Call): Promise<Output> {
  const client = await session.client();
  const { signal } = session;
  const pool = await resolve(client, storagePoolKind, "", args[0] ?? "", signal);
  const lost = options.text("lost");
  const spec = defined({ ...limits(options), lost: lost === undefined ? undefined : lost === "yes" });
  if (Object.keys(spec).length === 0) {
    throw new StrataError("Invalid", "say what to set: --warn-percent, --max-overcommit or --lost");
  }
  const ref = { name: pool.metadata.name };
  return tableOf(storagePoolForm, await client.patch(storagePoolKind, ref, { spec }, { signal }));
}

function limits(options: OptionValues): Record<string, Json | undefined> {
  return {
    warnPercent: numberOf(options, "warn-percent"),
    maxOvercommit: numberOf(options, "max-overcommit"),
  };
}

function numberOf(options: OptionValues, name: string): number | undefined {
  const text = options.text(name);
  if (text === undefined) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  throw new StrataError("Invalid", `--${name} must be a number, not "${text}"`);
}
