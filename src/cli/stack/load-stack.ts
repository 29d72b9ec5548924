/** Reads a stack file and the files it names. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile, realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, relative, resolve } from "node:path";
import { type FieldError, StrataError } from "../../core/errors.ts";
import { expectDockerfile, packContext } from "../build/pack-context.ts";
import { contextKey, type Desired, defaultDockerfile, expandStack, type Upload } from "./expand-stack.ts";
import { type FieldPath, type Locate, type ParsedStack, parseStack } from "./parse-stack.ts";
import { type ImageEntry, type Stack, stackLimits } from "./stack-schema.ts";

export interface LoadedStack {
  name: string;
  project: string;
  desired: Desired[];
  locate: Locate;
}

export interface LoadOptions {
  cwd: string;
  /** For `~/`. */
  home: string | undefined;
  /** Another name for the stack, and for its project: for one beside that of the file. */
  name?: string;
}

/** @throws NotFound without such a file; Invalid with a field for each error. */
export async function loadStack(path: string, options: LoadOptions): Promise<LoadedStack> {
  const { file, locate, ...read } = await readStack(path, options.cwd);
  const { name } = options;
  const stack = name === undefined ? read.stack : { ...read.stack, stack: name, project: name };
  const reader = new FileReader(dirname(file), options, locate);
  for (const { at, path: source, place } of namedFiles(stack)) await reader.read(at, source, place);
  for (const [image, entry] of Object.entries(stack.images)) {
    if (entry.build) await reader.readContext(["images", image, "build"], entry.build, entry);
  }
  reader.finish();
  const project = stack.project ?? stack.stack;
  return { name: stack.stack, project, desired: expandStack(stack, reader, locate), locate };
}

/** Only its name and project: what it names besides need not be there any more. */
export async function readStackIdentity(
  path: string,
  cwd: string,
): Promise<{ name: string; project: string }> {
  const { stack } = await readStack(path, cwd);
  return { name: stack.stack, project: stack.project ?? stack.stack };
}

async function readStack(path: string, cwd: string): Promise<ParsedStack & { file: string }> {
  const file = resolve(cwd, path);
  const text = Buffer.from(await readBounded(file, path, stackLimits.fileBytes)).toString("utf8");
  return { file, ...parseStack(text, basename(file)) };
}

/** `inside`: relative to the stack file and in its directory; `image`: only its checksum is needed. */
type Place = "inside" | "anywhere" | "image";

function* namedFiles(stack: Stack): Generator<{ at: FieldPath; path: string; place: Place }> {
  for (const [name, entry] of Object.entries(stack.keyPairs)) {
    if (entry.file) yield { at: ["keyPairs", name, "file"], path: entry.file, place: "anywhere" };
  }
  for (const [name, entry] of Object.entries(stack.images)) {
    if (entry.file) yield { at: ["images", name, "file"], path: entry.file, place: "image" };
  }
  const instances = Object.entries(stack.instances).map(([name, entry]) => ({
    at: ["instances", name],
    entry,
  }));
  const templates = Object.entries(stack.groups).map(([name, { template }]) => ({
    at: ["groups", name, "template"],
    entry: template,
  }));
  for (const { at, entry } of [...instances, ...templates]) {
    if (entry.userData?.file) {
      yield { at: [...at, "userData", "file"], path: entry.userData.file, place: "inside" };
    }
    for (const [index, file] of (entry.files ?? []).entries()) {
      yield { at: [...at, "files", index, "source"], path: file.source, place: "inside" };
    }
  }
}

class FileReader {
  readonly contents = new Map<string, Uint8Array>();
  readonly images = new Map<string, Upload>();
  readonly contexts = new Map<string, Upload>();
  readonly #fields: FieldError[] = [];
  readonly #directory: string;
  readonly #options: LoadOptions;
  readonly #locate: Locate;

  constructor(directory: string, options: LoadOptions, locate: Locate) {
    this.#directory = directory;
    this.#options = options;
    this.#locate = locate;
  }

  async read(at: FieldPath, path: string, place: Place): Promise<void> {
    await this.#attempt(at, async () => {
      const file = await this.#find(path, place);
      if (place === "image") this.images.set(path, { path: file, sha256: await sha256Of(file) });
      else this.contents.set(path, await readBounded(file, path, stackLimits.fileSourceBytes));
    });
  }

  /** What would be sent is read to its end, for its checksum: it tells whether the image has to be built again. */
  async readContext(at: FieldPath, path: string, entry: ImageEntry): Promise<void> {
    await this.#attempt(at, async () => {
      const directory = await this.#find(path, "inside", "directory");
      const { dockerfile = defaultDockerfile } = entry;
      await expectDockerfile(directory, dockerfile);
      const hash = createHash("sha256");
      for await (const chunk of packContext({ directory, file: dockerfile })) hash.update(chunk);
      this.contexts.set(contextKey(entry), { path: directory, sha256: hash.digest("hex"), dockerfile });
    });
  }

  async #attempt(at: FieldPath, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof StrataError)) throw error;
      this.#fields.push({ path: this.#locate(at), message: error.message });
    }
  }

  finish(): void {
    if (this.#fields.length === 0) return;
    throw new StrataError("Invalid", "the stack names files that cannot be used; nothing was changed", {
      fields: this.#fields,
    });
  }

  async #find(path: string, place: Place, what = "file"): Promise<string> {
    const home = this.#options.home;
    if (place !== "inside") {
      const expanded = home && path.startsWith("~/") ? resolve(home, path.slice(2)) : path;
      return resolve(this.#directory, expanded);
    }
    const outside = new StrataError("Invalid", `"${path}" must lie in the directory of the stack file`);
    if (isAbsolute(path)) throw outside;
    const directory = await realpath(this.#directory);
    const file = await realpath(resolve(directory, path)).catch(() => {
      throw new StrataError("NotFound", `there is no ${what} "${path}" beside the stack file`);
    });
    const below = relative(directory, file);
    if (below === "" || below.startsWith("..") || isAbsolute(below)) throw outside;
    return file;
  }
}

async function readBounded(file: string, shown: string, maxBytes: number): Promise<Uint8Array> {
  try {
    const handle = await open(file);
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw new StrataError("Invalid", `${shown} is not a file`);
      if (stats.size > maxBytes) {
        throw new StrataError("Invalid", `${shown} has ${stats.size} bytes; at most ${maxBytes} are allowed`);
      }
    } finally {
      await handle.close();
    }
    return await readFile(file);
  } catch (error) {
    if (error instanceof StrataError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT") throw new StrataError("NotFound", `there is no file ${shown}`);
    throw new StrataError("Invalid", `cannot read ${shown} (${code ?? "unknown reason"})`, { cause: error });
  }
}

export async function sha256Of(file: string): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(file)) hash.update(chunk as Uint8Array);
  } catch (cause) {
    throw new StrataError("NotFound", `cannot read ${file} (${(cause as NodeJS.ErrnoException).code})`, {
      cause,
    });
  }
  return hash.digest("hex");
}
