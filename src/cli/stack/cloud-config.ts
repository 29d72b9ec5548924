/** Puts files into user data, as cloud-config's `write_files`. Pure, and the same files always give the same text. */
import { gzipSync } from "node:zlib";
import { isMap, isSeq, parseDocument } from "yaml";
import { StrataError } from "../../core/errors.ts";

export interface GuestFile {
  path: string;
  content: Uint8Array;
  mode?: string | undefined;
  owner?: string | undefined;
}

/** Larger files are compressed; smaller ones stay the same bytes whatever version of zlib there is. */
const compressFromBytes = 16 * 1024;
const header = "#cloud-config";

/**
 * User data with the files added. Without `userData` it is a cloud-config of its own.
 * @throws Invalid when `userData` is no cloud-config, or has a `write_files` that is no list.
 */
export function withFiles(userData: string | undefined, files: readonly GuestFile[]): string {
  if (files.length === 0) return userData ?? "";
  const text = userData ?? `${header}\n`;
  if (!text.startsWith(header)) {
    throw new StrataError("Invalid", `files can only be added to user data that begins with ${header}`);
  }
  const document = parseDocument(text, { prettyErrors: false });
  const broken = document.errors[0];
  if (broken)
    throw new StrataError("Invalid", `the user data is not YAML: ${broken.message.split("\n", 1)[0]}`);
  if (document.contents === null) document.contents = document.createNode({}) as never;
  if (!isMap(document.contents))
    throw new StrataError("Invalid", "the user data's cloud-config must be a map");
  const existing = document.get("write_files");
  const entries = files.map(entryOf);
  if (existing === undefined || existing === null) document.set("write_files", document.createNode(entries));
  else if (isSeq(existing)) for (const entry of entries) existing.add(document.createNode(entry));
  else throw new StrataError("Invalid", "write_files in the user data must be a list");
  const body = document.toString({ lineWidth: 0 });
  return body.startsWith(header) ? body : `${header}\n${body}`;
}

function entryOf(file: GuestFile): Record<string, string | boolean> {
  const large = file.content.length > compressFromBytes;
  const bytes = large ? gzipSync(file.content, { level: 9 }) : Buffer.from(file.content);
  return {
    path: file.path,
    permissions: file.mode ?? "0644",
    encoding: large ? "gz+b64" : "b64",
    content: bytes.toString("base64"),
    // Users of the cloud-config exist only in the last stage.
    ...(file.owner ? { owner: file.owner, defer: true } : {}),
  };
}
