/** One file of a root that is saved as an archive; nothing of it is unpacked. */
import { StrataError } from "../../core/errors.ts";
import { readTar, type TarEntry } from "../images/tar-reader.ts";

/**
 * Hands the bytes of one file to `use`. Links are not followed: what they lead to may lie before them.
 * @throws NotFound; Invalid for what is no regular file.
 */
export async function readArchivedFile(
  archive: AsyncIterable<Uint8Array>,
  wanted: string,
  use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const path = plain(wanted);
  if (path === "" || path.split("/").includes("..")) throw noFile(wanted, "it is no path of a file");
  for await (const entry of readTar(archive)) {
    const at = plain(entry.path);
    if (entry.type === "symlink" && path.startsWith(`${at}/`)) throw linked(wanted, entry);
    if (at !== path) continue;
    if (entry.type === "file") return await use(entry.content);
    if (entry.type === "symlink" || entry.type === "hardlink") throw linked(wanted, entry);
    throw noFile(wanted, `it is a ${entry.type}`);
  }
  throw new StrataError("NotFound", `there is no /${path} in the backup`);
}

/** Without the top, and without names that mean nothing. */
function plain(path: string): string {
  return path
    .split("/")
    .filter((name) => name !== "" && name !== ".")
    .join("/");
}

function linked(wanted: string, { path, type, target }: TarEntry): StrataError {
  const kind = type === "symlink" ? "symbolic" : "hard";
  return noFile(wanted, `/${plain(path)} is a ${kind} link to ${target}; name that instead`);
}

function noFile(path: string, why: string): StrataError {
  return new StrataError("Invalid", `${path} is not a file that can be read from the backup: ${why}`);
}
