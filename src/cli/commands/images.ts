/** `image …` and `key-pair …` */
import { createReadStream } from "node:fs";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { artefactFormats } from "../../kinds/image.ts";
import { findInCatalogue, searchCatalogue } from "../../kinds/image-catalogue.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import type { ArgumentSpec, Call, CommandSpec, OptionSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { asJson, keyPairForm } from "../show.ts";
import { formatOf } from "../stack/expand-stack.ts";
import { sha256Of } from "../stack/load-stack.ts";
import { buildImageCommand } from "./build-image.ts";
import { exportImageCommand, imageSbomCommand } from "./export-image.ts";
import { imageGcCommands } from "./image-gc.ts";
import { imageHistoryCommand } from "./image-history.ts";
import { imageLogCommand } from "./image-log.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";
import { makeImage } from "./make-image.ts";

const newName: ArgumentSpec = { name: "<name>", summary: "its name in the project" };
const imageNames: ArgumentSpec = {
  name: "<name...>",
  summary: "names or beginnings of ids",
  completes: "images",
};
const description: OptionSpec = { flags: "--description <text>", summary: "for people" };
const sha256: OptionSpec = { flags: "--sha256 <digits>", summary: "checksum that it must have" };
const format: OptionSpec = {
  flags: "--format <format>",
  summary: "tar (a root tree), a disk image's format, or ova (an appliance); left out, by its name",
  choices: [...artefactFormats],
};
const boot: OptionSpec = {
  flags: "--boot <how>",
  summary: "disks: direct (with the kernel of its root) or firmware (the disk as it is); left out, what fits",
  choices: ["direct", "firmware"],
};

export const imageCommands: readonly CommandSpec[] = [
  buildImageCommand,
  {
    path: "image pull",
    group: "Images and keys",
    summary:
      "Fetch an image: of the catalogue by its name, from a URL (with its checksum), from a simplestreams server",
    arguments: [
      newName,
      { name: "<source>", summary: "name in the catalogue, or address of the image or of the server" },
    ],
    options: [
      sha256,
      format,
      boot,
      {
        flags: "--alias <alias>",
        summary: "the address is a simplestreams server: the image there, such as debian/12",
      },
      description,
    ],
    examples: [
      "strata image pull web debian/12",
      "strata image pull debian12 https://images.example.org/debian-12.qcow2 --sha256 0123…",
      "strata image pull debian12 https://images.linuxcontainers.org --alias debian/12/cloud",
    ],
    run: pullImage,
  },
  {
    path: "image search",
    group: "Images and keys",
    summary: "List the images that `image pull` knows by name",
    arguments: [{ name: "[word...]", summary: "only those with all these words" }],
    examples: ["strata image search", "strata image search ubuntu"],
    run: async (call) => {
      const found = searchCatalogue(call.args);
      return {
        type: "table",
        columns: ["NAME", "SYSTEM"],
        rows: found.map(({ name, title }) => [name, title]),
        empty: `no image of the catalogue has all of ${call.args.join(", ")}`,
        json: found.map(({ name, title }) => ({ name, title })),
      };
    },
  },
  {
    path: "image import",
    group: "Images and keys",
    summary: "Import a root tarball, a disk image or an appliance from this machine",
    arguments: [
      newName,
      { name: "<file>", summary: "tarball, qcow2, raw, VMDK, VDI or VHDX disk, or OVA", completes: "files" },
    ],
    options: [sha256, format, boot, description],
    examples: [
      "strata image import mine root.tar.xz",
      "strata image import cloud debian-12-generic-amd64.qcow2",
      "strata image import shop appliance.ova --boot firmware",
    ],
    run: importImage,
  },
  imageLogCommand,
  exportImageCommand,
  imageSbomCommand,
  {
    path: "image create",
    group: "Images and keys",
    summary: "Make an image of what an instance has on its root, also while it runs",
    arguments: [newName],
    options: [{ flags: "--from-instance <instance>", summary: "its name" }, description],
    examples: ["strata image create lms-2026 --from-instance lms"],
    run: createImage,
  },
  {
    path: "image list",
    group: "Images and keys",
    summary: "List images",
    options: listOptions,
    examples: ["strata image list"],
    run: (call) => listResources(call, "images"),
  },
  {
    path: "image info",
    group: "Images and keys",
    summary: "Show all about an image",
    arguments: [{ ...imageNames, name: "<name>" }],
    examples: ["strata image info debian12"],
    run: (call) => showResource(call, "images", call.args[0] ?? ""),
  },
  {
    path: "image delete",
    group: "Images and keys",
    summary: "Delete images that no instance uses",
    arguments: [imageNames],
    examples: ["strata image delete debian12"],
    run: (call) => deleteResources(call, "images", call.args),
  },
  imageHistoryCommand,
  ...imageGcCommands,
  ...keyPairCommands(),
];

function createImage(call: Call): Promise<Output> {
  const instance = call.options.text("from-instance");
  if (instance !== undefined) return makeImage(call, call.args[0] ?? "", { type: "instance", instance });
  throw new StrataError("Invalid", "say of which instance: --from-instance NAME");
}

function pullImage(call: Call): Promise<Output> {
  const { options } = call;
  const url = call.args[1] ?? "";
  const alias = options.text("alias");
  if (findInCatalogue(url) && alias === undefined)
    return makeImage(call, call.args[0] ?? "", { type: "catalogue", name: url });
  if (!URL.canParse(url)) {
    throw new StrataError(
      "Invalid",
      `"${url}" is neither an address nor an image of the catalogue; \`strata image search\` lists those`,
    );
  }
  if (alias !== undefined)
    return makeImage(call, call.args[0] ?? "", { type: "simplestreams", server: url, alias });
  const checksum = options.text("sha256");
  if (checksum === undefined) {
    throw new StrataError(
      "Invalid",
      "an image from a URL needs --sha256, an image from a simplestreams server --alias",
    );
  }
  const given = options.text("format") ?? formatOf(new URL(url).pathname);
  return makeImage(call, call.args[0] ?? "", {
    type: "url",
    url,
    sha256: checksum,
    format: given,
    ...bootOption(call),
  });
}

async function importImage(call: Call): Promise<Output> {
  const { session, options } = call;
  const path = resolvePath(session.cwd, call.args[1] ?? "");
  const checksum = await sha256Of(path);
  const wanted = options.text("sha256");
  if (wanted !== undefined && wanted !== checksum) {
    throw new StrataError("Invalid", `${path} has the SHA-256 checksum ${checksum}, not ${wanted}`);
  }
  const client = await session.startedClient();
  session.printer.progress("upload", "sending");
  const sent = await client.upload(createReadStream(path), { signal: session.signal });
  const given = options.text("format") ?? formatOf(path);
  const source = { type: "upload", upload: sent.upload, format: given, sha256: checksum };
  return await makeImage(call, call.args[0] ?? "", { ...source, ...bootOption(call) });
}

function bootOption({ options }: Call): { boot?: string } {
  const how = options.text("boot");
  return how === undefined ? {} : { boot: how };
}

function keyPairCommands(): CommandSpec[] {
  const group = "Images and keys";
  return [
    {
      path: "key-pair create",
      group,
      summary: "Make an SSH key: the private half stays in a file here, the public half goes to Strata",
      arguments: [newName],
      options: [{ flags: "--file <path>", summary: "of the private key (default: ~/.ssh/strata-NAME)" }],
      examples: ["strata key-pair create me"],
      run: createKeyPair,
    },
    {
      path: "key-pair import",
      group,
      summary: "Import a public SSH key",
      arguments: [newName, { name: "<file>", summary: "such as ~/.ssh/id_ed25519.pub", completes: "files" }],
      examples: ["strata key-pair import me ~/.ssh/id_ed25519.pub"],
      run: async (call) => {
        const path = resolvePath(call.session.cwd, call.args[1] ?? "");
        const text = await readFile(path, "utf8").catch((cause: unknown) => {
          throw new StrataError("Invalid", `cannot read the public key from ${path}`, { cause });
        });
        return await storeKeyPair(call, text.trim());
      },
    },
    {
      path: "key-pair list",
      group,
      summary: "List key pairs",
      options: listOptions,
      examples: ["strata key-pair list"],
      run: (call) => listResources(call, "key-pairs"),
    },
    {
      path: "key-pair delete",
      group,
      summary: "Delete key pairs; private keys in files stay",
      arguments: [{ name: "<name...>", summary: "names" }],
      examples: ["strata key-pair delete me"],
      run: (call) => deleteResources(call, "key-pairs", call.args),
    },
  ];
}

async function createKeyPair(call: Call): Promise<Output> {
  const { session, options } = call;
  const name = call.args[0] ?? "";
  const home = session.env.HOME ?? "/root";
  const path = resolvePath(session.cwd, options.text("file") ?? `${home}/.ssh/strata-${name}`);
  const taken = await access(path).then(
    () => true,
    () => false,
  );
  if (taken)
    throw new StrataError(
      "AlreadyExists",
      `${path} exists already; import its public half, or choose --file`,
    );
  // Checks name and permission before a file is made.
  const { publicKey, privateKey } = await session.machine.makeSshKey(`strata ${session.project}/${name}`);
  const output = await storeKeyPair(call, publicKey);
  await mkdir(resolvePath(path, ".."), { recursive: true, mode: 0o700 });
  await writeFile(path, privateKey, { mode: 0o600, flag: "wx" });
  await writeFile(`${path}.pub`, `${publicKey}\n`, { mode: 0o644 });
  session.printer.note(`the private key is in ${path}`);
  return output;
}

async function storeKeyPair(call: Call, publicKey: string): Promise<Output> {
  const { session } = call;
  const client = await session.client();
  const draft = { name: call.args[0] ?? "", project: session.project, spec: { publicKey } };
  const created = await client.create(keyPairKind, draft, { signal: session.signal });
  return {
    type: "table",
    columns: keyPairForm.columns,
    rows: [keyPairForm.row(created)],
    empty: "no key pair",
    json: asJson(created),
  };
}
