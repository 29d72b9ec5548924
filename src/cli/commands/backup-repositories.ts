/** Backup repositories: where backups are kept. */
import { open, readFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { backupRepositoryForm } from "../show-backups.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";
import { deleteLostRepositories } from "./lost-repositories.ts";

const group = "Backups";
const repositoryArgument = {
  name: "<repository>",
  summary: "its name",
  completes: "backup-repositories",
} as const;

export const backupRepositoryCommands: readonly CommandSpec[] = [
  {
    path: "backup-repository create",
    group,
    summary: "Keep backups in a directory or an S3 bucket, encrypted with a key of your own",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--directory <path>", summary: "below a directory that the operator has named for backups" },
      { flags: "--s3 <endpoint>", summary: "such as https://s3.example.org" },
      { flags: "--bucket <name>", summary: "of the S3 service" },
      { flags: "--prefix <path>", summary: "in the bucket (default: all of it)" },
      { flags: "--region <name>", summary: "of the bucket, where the service wants to know" },
      { flags: "--access-key-id <id>", summary: "of the S3 service" },
      { flags: "--secret-file <file>", summary: "has the secret access key in it" },
      { flags: "--new-key <file>", summary: "make a key and write it to a new file: keep that elsewhere" },
      {
        flags: "--key-file <file>",
        summary: "has the key in it, of a repository that is there already or not",
      },
    ],
    examples: [
      "strata backup-repository create nas --directory /var/backups/strata/school --new-key nas.key",
      "strata backup-repository create cloud --s3 https://s3.example.org --bucket school --access-key-id ID --secret-file s3.secret --new-key cloud.key",
    ],
    run: create,
  },
  {
    path: "backup-repository list",
    group,
    summary: "List backup repositories",
    options: listOptions,
    examples: ["strata backup-repository list"],
    run: (call) => listResources(call, "backup-repositories"),
  },
  {
    path: "backup-repository show",
    group,
    summary: "Show all about a backup repository, but for its secrets",
    arguments: [repositoryArgument],
    examples: ["strata backup-repository show nas"],
    run: (call) => showResource(call, "backup-repositories", call.args[0] ?? ""),
  },
  {
    path: "backup-repository check",
    group,
    summary: "Read all of a backup repository and compare it with its checksums",
    arguments: [repositoryArgument],
    examples: ["strata backup-repository check nas"],
    run: check,
  },
  {
    path: "backup-repository set-key",
    group,
    summary: "Tell the daemon another key of the same repository, or other S3 credentials",
    arguments: [repositoryArgument],
    options: [
      { flags: "--key-file <file>", summary: "has the key in it" },
      { flags: "--access-key-id <id>", summary: "of the S3 service" },
      { flags: "--secret-file <file>", summary: "has the secret access key in it" },
    ],
    examples: ["strata backup-repository set-key nas --key-file nas.key"],
    run: setKey,
  },
  {
    path: "backup-repository set",
    group,
    summary: "Say that a backup repository is lost for good, or that it came back",
    arguments: [repositoryArgument],
    options: [
      {
        flags: "--lost <answer>",
        summary: "yes: its storage or key will not come back, and its backups may be deleted; no: it did",
        choices: ["yes", "no"],
      },
    ],
    examples: ["strata backup-repository set nas --lost yes", "strata backup-repository set nas --lost no"],
    run: set,
  },
  {
    path: "backup-repository delete",
    group,
    summary: "Forget backup repositories that nothing uses; what is in them stays, for whoever has the key",
    arguments: [{ ...repositoryArgument, name: "<repository...>" }],
    options: [
      {
        flags: "--lost",
        summary: "it will not come back: delete its backups and schedules too, and touch nothing in it",
      },
    ],
    examples: ["strata backup-repository delete nas", "strata backup-repository delete nas --lost"],
    run: (call) =>
      call.options.flag("lost")
        ? deleteLostRepositories(call)
        : deleteResources(call, "backup-repositories", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const [directory, s3] = [options.text("directory"), options.text("s3")];
  if ((directory === undefined) === (s3 === undefined)) {
    throw new StrataError("Invalid", "say where it is: --directory or --s3, one of the two");
  }
  const [newKey, keyFile] = [options.text("new-key"), options.text("key-file")];
  if ((newKey === undefined) === (keyFile === undefined)) {
    throw new StrataError(
      "Invalid",
      "it needs a key: --new-key FILE makes one, --key-file FILE takes one that you have",
    );
  }
  const secretFile = options.text("secret-file");
  const key = keyFile === undefined ? await makeKey(session, newKey ?? "") : await read(session, keyFile);
  const place =
    directory === undefined
      ? {
          s3: defined({
            endpoint: s3,
            bucket: options.text("bucket"),
            prefix: options.text("prefix"),
            region: options.text("region"),
            accessKeyId: options.text("access-key-id"),
            secretAccessKey: secretFile === undefined ? undefined : await read(session, secretFile),
          }),
        }
      : { directory: { path: directory } };
  const client = await session.startedClient();
  const draft = { name: args[0] ?? "", project: session.project, spec: { ...place, key } };
  const created = await client.create(backupRepositoryKind, draft, { signal: session.signal });
  if (newKey !== undefined) {
    session.printer.note(
      `the key is in ${newKey}: keep it elsewhere as well. Without it, nothing in the repository can ever be read`,
    );
  }
  session.onInterrupt("interrupted; it goes on in the background: see `strata backup-repository list`");
  return tableOf(
    backupRepositoryForm,
    await awaitState(client, session, backupRepositoryKind, created, ["ready"]),
  );
}

async function check(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const found = await resolve(client, backupRepositoryKind, project, args[0] ?? "", signal);
  const { name } = found.metadata;
  const spec = { checks: found.spec.checks + 1 };
  const asked = await client.patch(backupRepositoryKind, { project, name }, { spec }, { signal });
  session.onInterrupt("interrupted; it goes on in the background: see `strata backup-repository list`");
  const checked = await awaitState(client, session, backupRepositoryKind, asked, ["ready", "failed"]);
  const damage = checked.status.conditions.find(
    ({ type, status }) => type === "Intact" && status === "false",
  );
  if (session.wait && damage) {
    throw new StrataError("Unavailable", `backup repository "${name}" is damaged: ${damage.message}`);
  }
  return tableOf(backupRepositoryForm, checked);
}

async function set({ session, args, options }: Call): Promise<Output> {
  const { project, signal } = session;
  const client = await session.client();
  const { metadata } = await resolve(client, backupRepositoryKind, project, args[0] ?? "", signal);
  const answer = options.text("lost");
  if (answer === undefined) throw new StrataError("Invalid", "say what to set: --lost");
  const lost = answer === "yes";
  if (lost) {
    await session.confirm(
      `Backup repository ${metadata.name} is said to be lost for good: its backups can be deleted, and nothing in it is touched ` +
        "any more. Go on?",
    );
  }
  const ref = { project, name: metadata.name };
  const patched = await client.patch(backupRepositoryKind, ref, { spec: { lost } }, { signal });
  if (lost) return tableOf(backupRepositoryForm, patched);
  return tableOf(
    backupRepositoryForm,
    await awaitState(client, session, backupRepositoryKind, patched, ["ready"]),
  );
}

async function setKey(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const found = await resolve(client, backupRepositoryKind, project, args[0] ?? "", signal);
  const [keyFile, secretFile] = [options.text("key-file"), options.text("secret-file")];
  const s3 = defined({
    accessKeyId: options.text("access-key-id"),
    secretAccessKey: secretFile === undefined ? undefined : await read(session, secretFile),
  });
  const spec = defined({
    key: keyFile === undefined ? undefined : await read(session, keyFile),
    s3: Object.keys(s3).length === 0 ? undefined : s3,
  });
  if (Object.keys(spec).length === 0) {
    throw new StrataError("Invalid", "say what is new: --key-file, --access-key-id or --secret-file");
  }
  const ref = { project, name: found.metadata.name };
  const patched = await client.patch(backupRepositoryKind, ref, { spec }, { signal });
  return tableOf(
    backupRepositoryForm,
    await awaitState(client, session, backupRepositoryKind, patched, ["ready"]),
  );
}

/** 256 random bits. @throws AlreadyExists rather than replacing what may be another repository's only key. */
async function makeKey({ cwd, random }: Session, file: string): Promise<string> {
  const key = Buffer.from(random.bytes(32)).toString("base64url");
  const path = resolvePath(cwd, file);
  const created = await open(path, "wx", 0o600).catch((cause) => {
    const exists = cause.code === "EEXIST";
    throw new StrataError(
      exists ? "AlreadyExists" : "Invalid",
      exists ? `${path} exists already: --key-file uses the key in it` : `cannot write ${path}`,
      { cause },
    );
  });
  await using handle = created;
  await handle.writeFile(`${key}\n`);
  await handle.sync();
  return key;
}

async function read({ cwd }: Session, file: string): Promise<string> {
  try {
    return (await readFile(resolvePath(cwd, file), "utf8")).trim();
  } catch (cause) {
    throw new StrataError("Invalid", `cannot read ${file}`, { cause });
  }
}
