/**
 * The manifest is an image's identity: one line a path, sorted, with all that a guest can tell from another tree, and
 * without what depends on when or how it was unpacked. The digest is the hash of the manifest's bytes, so equal trees
 * are one entry wherever they came from, and a tree can be checked against its digest alone.
 */
import { hash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { StrataError } from "../../core/errors.ts";
import { canonicalJson, type Json } from "../../core/json.ts";
import { ownFile } from "../../core/own-files.ts";
import type { RootEntry } from "../../kinds/drift.ts";
import type { ScanRequest, TreeEntry, TreeScan } from "./tree-scan.ts";

export interface Manifest {
  /** `sha256:` and 64 hexadecimal digits. */
  digest: string;
  text: string;
}

/** `capabilities`: file capabilities (hexadecimal) by path, which a scan cannot see. */
export function toManifest(
  entries: readonly TreeEntry[],
  capabilities: ReadonlyMap<string, string>,
): Manifest {
  const lines = entries.map((entry) => {
    const capability = capabilities.get(entry.path);
    const line = capability === undefined ? { ...entry } : { ...entry, capability };
    return canonicalJson(line as unknown as Json);
  });
  const text = `[\n${lines.join(",\n")}\n]\n`;
  return { text, digest: `sha256:${hash("sha256", text)}` };
}

/** The capabilities that a stored manifest lists, for computing it again. */
export function capabilitiesOf(manifestText: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of manifestText.split("\n")) {
    if (!line.includes('"capability"')) continue;
    const { path, capability } = JSON.parse(line.replace(/,$/, "")) as { path: string; capability?: string };
    if (capability !== undefined) found.set(path, capability);
  }
  return found;
}

/** A stored manifest's entries by path. @throws Unavailable when it is not the one of the digest. */
export async function readManifest(path: string, digest: string): Promise<ReadonlyMap<string, RootEntry>> {
  const text = await readFile(path, "utf8").catch(() => "");
  if (`sha256:${hash("sha256", text)}` !== digest) {
    throw new StrataError(
      "Unavailable",
      `the list of files of the image ${digest.slice(0, 19)} is damaged on this host; delete the image and make it again`,
    );
  }
  const entries = JSON.parse(text) as RootEntry[];
  return new Map(entries.map((entry) => [entry.path, entry]));
}

/** Scans on a thread of its own, so that the event loop goes on. @throws the signal's reason when aborted. */
export function scanTreeInThread(request: ScanRequest, signal: AbortSignal): Promise<TreeScan> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const worker = new Worker(ownFile("src/host/images/tree-scan-worker.ts"), {
      workerData: request,
      execArgv: [], // ours may be for the main program only
    });
    const abort = () => {
      reject(signal.reason);
      void worker.terminate();
    };
    signal.addEventListener("abort", abort, { once: true });
    worker.once("message", resolve);
    worker.once("error", (cause) =>
      reject(new StrataError("Internal", "cannot read an image's tree", { cause, detail: request.root })),
    );
    worker.once("exit", () => {
      signal.removeEventListener("abort", abort);
      reject(new StrataError("Internal", "reading an image's tree ended early", { detail: request.root }));
    });
  });
}
