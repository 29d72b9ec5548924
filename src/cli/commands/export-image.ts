/** `image export`: an image's content into a file of this machine. */
import { createHash } from "node:crypto";
import { access, open, rename, rm } from "node:fs/promises";
import { basename, resolve as resolvePath } from "node:path";
import type { Channel } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { formatBytes } from "../../core/units.ts";
import { type ArtefactFormat, artefactFormats, type ExportFormat, imageKind } from "../../kinds/image.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";

const dataChannel = 1;
const zeros = Buffer.alloc(1024 * 1024);

export const exportImageCommand: CommandSpec = {
  path: "image export",
  group: "Images and keys",
  summary: "Write an image into a file: a disk that boots by itself, an appliance, or the root tree",
  arguments: [
    { name: "<name>", summary: "name or beginning of the id", completes: "images" },
    { name: "<file>", summary: "of this machine; made anew", completes: "files" },
  ],
  options: [
    {
      flags: "--format <format>",
      summary: "of the file; left out, by its name",
      choices: [...artefactFormats],
    },
    { flags: "--force", summary: "replace a file that is there" },
  ],
  examples: ["strata image export web web.qcow2", "strata image export web web.ova"],
  run: exportImage,
};

export const imageSbomCommand: CommandSpec = {
  path: "image sbom",
  group: "Images and keys",
  summary: "Write the list of an image's software, by its package manager, as SPDX 2.3 (JSON)",
  arguments: [
    { name: "<name>", summary: "name or beginning of the id", completes: "images" },
    { name: "[file]", summary: "of this machine (default: NAME.spdx.json)", completes: "files" },
  ],
  options: [{ flags: "--force", summary: "replace a file that is there" }],
  examples: ["strata image sbom web", "strata image sbom web inventory.spdx.json"],
  run: (call) => writeFile(call, "spdx", call.args[1] ?? `${call.args[0] ?? ""}.spdx.json`),
};

/** @throws Invalid when the name says nothing. */
export function exportFormatOf(file: string): ArtefactFormat {
  const ending = basename(file).split(".").at(-1)?.toLowerCase();
  const format = artefactFormats.find((known) => known === ending);
  if (format !== undefined) return format;
  throw new StrataError(
    "Invalid",
    `the name "${basename(file)}" does not say which format it should have; give --format, one of ${artefactFormats.join(", ")}`,
  );
}

async function exportImage(call: Call): Promise<Output> {
  const { options } = call;
  const file = call.args[1] ?? "";
  const format = (options.text("format") as ArtefactFormat | undefined) ?? exportFormatOf(file);
  return writeFile(call, format, file);
}

/** @throws AlreadyExists unless told to replace. */
async function writeFile(call: Call, format: ExportFormat, file: string): Promise<Output> {
  const { session, options } = call;
  const name = call.args[0] ?? "";
  const path = resolvePath(session.cwd, file);
  if (!options.flag("force") && (await exists(path))) {
    throw new StrataError("AlreadyExists", `${path} exists already; choose another name, or give --force`);
  }
  const client = await session.client();
  const { metadata } = await resolve(client, imageKind, session.project, name, session.signal);
  const ref = { project: metadata.project ?? session.project, name: metadata.name };
  const channel = await client.exportImage(ref, format, session.signal);
  const partial = `${path}.partial`;
  try {
    const sizeBytes = await receive(session, channel, partial);
    await rename(partial, path);
    return {
      type: "table",
      columns: ["FILE", "FORMAT", "SIZE"],
      rows: [[path, format, formatBytes(sizeBytes)]],
      empty: "nothing",
      json: { file: path, format, sizeBytes },
    };
  } finally {
    channel.close();
    await rm(partial, { force: true });
  }
}

/** Into a file at `path`. @throws Unavailable when it ends before all came; what the other end says went wrong. */
export async function receive(session: Session, channel: Channel, path: string): Promise<number> {
  await using file = await open(path, "w", 0o600);
  const sum = createHash("sha256");
  let sizeBytes = 0;
  let done: JsonObject | undefined;
  let writing: Promise<void> = Promise.resolve();
  const over = Promise.withResolvers<void>();
  over.promise.catch(() => {});
  const onAbort = () => channel.close();
  session.signal.addEventListener("abort", onAbort, { once: true });
  channel.onData = (number, data) => {
    if (number !== dataChannel) return;
    const at = sizeBytes;
    sizeBytes += data.length;
    sum.update(data);
    channel.pause();
    writing = writing.then(() => writeAt(file, data, at));
    writing.then(() => channel.resume(), over.reject);
    session.printer.progress("export", `writing: ${formatBytes(sizeBytes)}`);
  };
  channel.onControl = (message) => {
    if (message.type === "done") done = message;
    if (message.type === "progress") session.printer.progress("export", `${message.step}`);
  };
  channel.onClose = (error) => (error ? over.reject(error) : over.resolve());
  try {
    await over.promise;
    await writing;
    session.signal.throwIfAborted();
  } finally {
    session.signal.removeEventListener("abort", onAbort);
    await writing.catch(() => {});
  }
  if (done?.sizeBytes !== sizeBytes || done.sha256 !== sum.digest("hex")) {
    throw new StrataError("Unavailable", "the export ended before all of it came; try again");
  }
  await file.truncate(sizeBytes);
  await file.sync();
  return sizeBytes;
}

/** Zeros stay holes: a raw disk is mostly these. */
async function writeAt(file: Awaited<ReturnType<typeof open>>, data: Uint8Array, at: number): Promise<void> {
  const isZero = data.length <= zeros.length && zeros.compare(data, 0, data.length, 0, data.length) === 0;
  if (!isZero) await file.write(data, 0, data.length, at);
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
