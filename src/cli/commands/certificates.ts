/** Certificates of load balancers. */
import { readFile } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { certificateForm } from "../show-balancers.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";

const group = "Networks";
const certificateArgument = { name: "<name>", summary: "its name", completes: "certificates" } as const;

export const certificateCommands: readonly CommandSpec[] = [
  {
    path: "certificate create",
    group,
    summary: "Take a certificate of your own, or order one from an ACME authority",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--file <path>", summary: "your own: it and those above it, PEM" },
      { flags: "--key <path>", summary: "its private key, PEM; never shown again" },
      { flags: "--domain <name>", summary: "order one for this domain", repeatable: true },
      { flags: "--email <address>", summary: "where the authority writes to" },
      { flags: "--directory <url>", summary: "of the authority (default: Let's Encrypt)" },
      { flags: "--authorities <path>", summary: "what the authority's own HTTPS is checked with, PEM" },
    ],
    examples: [
      "strata certificate create site --file site.pem --key site.key",
      "strata certificate create site --domain www.example.org --email admin@example.org",
    ],
    run: create,
  },
  {
    path: "certificate list",
    group,
    summary: "List certificates",
    options: listOptions,
    examples: ["strata certificate list"],
    run: (call) => listResources(call, "certificates"),
  },
  {
    path: "certificate show",
    group,
    summary: "Show all about a certificate, but for its key",
    arguments: [certificateArgument],
    examples: ["strata certificate show site"],
    run: (call) => showResource(call, "certificates", call.args[0] ?? ""),
  },
  {
    path: "certificate delete",
    group,
    summary: "Delete certificates that no load balancer uses",
    arguments: [{ ...certificateArgument, name: "<name...>" }],
    examples: ["strata certificate delete site"],
    run: (call) => deleteResources(call, "certificates", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const [file, key] = [options.text("file"), options.text("key")];
  const domains = options.texts("domain");
  if ((file === undefined) !== (key === undefined)) {
    throw new StrataError("Invalid", "a certificate of your own needs both --file and --key");
  }
  if ((file === undefined) === (domains.length === 0)) {
    throw new StrataError("Invalid", "name either --file and --key, or each --domain to order one for");
  }
  const authorities = options.text("authorities");
  const spec =
    file !== undefined && key !== undefined
      ? { own: { certificate: await read(file), privateKey: await read(key) } }
      : {
          acme: defined({
            domains: [...domains],
            email: options.text("email"),
            directory: options.text("directory"),
            authorities: authorities === undefined ? undefined : await read(authorities),
          }),
        };
  const client = await session.startedClient();
  const draft = { name: args[0] ?? "", project: session.project, spec };
  const created = await client.create(certificateKind, draft, { signal: session.signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata certificate list`");
  // One that is ordered may have to wait for its balancer.
  const settled =
    file === undefined ? created : await awaitState(client, session, certificateKind, created, ["ready"]);
  return tableOf(certificateForm, settled);
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new StrataError("Invalid", `cannot read ${path}`, { cause });
  }
}
