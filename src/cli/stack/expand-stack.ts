/** From a Stack to the resources it stands for, checked by the kinds' own rules. Pure: files were read before. */
import { type FieldError, hasCode, StrataError } from "../../core/errors.ts";
import type { Json, JsonObject } from "../../core/json.ts";
import { groupKind } from "../../kinds/group.ts";
import { type ArtefactFormat, artefactFormats, imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import { type Kind, labelsSchema, nameSchema } from "../../kinds/kind.ts";
import { projectKind } from "../../kinds/project.ts";
import { type GuestFile, withFiles } from "./cloud-config.ts";
import { describeIssue, type FieldPath, type Locate } from "./parse-stack.ts";
import { plainSections } from "./stack-kinds.ts";
import type { ImageEntry, InstanceEntry, Stack } from "./stack-schema.ts";
import { stackLimits } from "./stack-schema.ts";

/** On everything a stack made; the value is the stack's name. */
export const stackLabel = "strata/stack";
/** On instances: the name they have in the file, without the number. */
const entryLabel = "strata/stack-entry";

/** A resource as it should be. */
export interface Desired {
  kind: Kind;
  name: string;
  /** Absent for the project itself. */
  project?: string;
  labels: Record<string, string>;
  spec: JsonObject;
  /** Where the file says so, for messages. */
  where: string;
  /** What has to be sent before the spec is complete (images). */
  upload?: Upload;
}

/** A file of this machine, or with `dockerfile`, a path in it, a directory as a build's context. */
export interface Upload {
  path: string;
  /** Of what is sent. */
  sha256: string;
  dockerfile?: string;
}

/** Where StackFiles has the context of an image that is built. */
export function contextKey({ build = "", dockerfile = defaultDockerfile }: ImageEntry): string {
  return `${build} ${dockerfile}`;
}

export const defaultDockerfile = "Dockerfile";

/** What the files named in the stack hold, by the path as written. Images: only their checksum. */
export interface StackFiles {
  contents: ReadonlyMap<string, Uint8Array>;
  images: ReadonlyMap<string, Upload>;
  /** By `contextKey`. */
  contexts: ReadonlyMap<string, Upload>;
}

/** Keys of a spec that have another name in the file. */
const fileKeys: Record<string, string> = { memoryMib: "memory", diskMib: "disk" };

/** In the order in which they are created. @throws Invalid with a field for each error. */
export function expandStack(stack: Stack, files: StackFiles, locate: Locate): Desired[] {
  const project = stack.project ?? stack.stack;
  const labels = { [stackLabel]: stack.stack };
  const expansion = new Expansion(project, labels, locate);
  expansion.add(projectKind, project, {}, stack.project === undefined ? ["stack"] : ["project"]);
  for (const [name, entry] of Object.entries(stack.keyPairs)) {
    const at = ["keyPairs", name];
    expansion.attempt(at, () =>
      expansion.add(keyPairKind, name, { publicKey: publicKeyOf(entry, files) }, at),
    );
  }
  expansion.addPlain(stack, "before");
  for (const [name, entry] of Object.entries(stack.images)) {
    const at = ["images", name];
    expansion.attempt(at, () => {
      const spec = withoutUndefined({ description: entry.description, source: imageSource(entry, files) });
      const upload = entry.file === undefined ? contextOf(entry, files) : files.images.get(entry.file);
      expansion.add(imageKind, name, spec, at, { ...(upload ? { upload } : {}) });
    });
  }
  for (const [name, entry] of Object.entries(stack.instances)) {
    const at = ["instances", name];
    expansion.attempt(at, () => {
      const spec = instanceSpec(entry, files);
      const own = { ...entry.labels, [entryLabel]: name };
      for (const instance of expandedNames(name, entry.count)) {
        if (!expansion.add(instanceKind, instance, spec, at, { labels: own })) break;
      }
    });
  }
  for (const [name, entry] of Object.entries(stack.groups)) {
    const at = ["groups", name];
    expansion.attempt(at, () => {
      const { template, labels = {}, ...rest } = entry;
      const spec = withoutUndefined({ ...rest, template: instanceSpec(template, files) });
      expansion.add(groupKind, name, spec, at, { labels });
    });
  }
  expansion.addPlain(stack, "after");
  return expansion.finish();
}

/** `lms`, or `enrollment-1` to `enrollment-3`. */
export function expandedNames(name: string, count: number | undefined): string[] {
  return count === undefined ? [name] : Array.from({ length: count }, (_, index) => `${name}-${index + 1}`);
}

class Expansion {
  readonly #desired: Desired[] = [];
  readonly #fields: FieldError[] = [];
  readonly #project: string;
  readonly #labels: Record<string, string>;
  readonly #locate: Locate;

  constructor(project: string, labels: Record<string, string>, locate: Locate) {
    this.#project = project;
    this.#labels = labels;
    this.#locate = locate;
  }

  /** False when it was refused: further ones of the same entry would be for the same reason. */
  add(
    kind: Kind,
    name: string,
    spec: JsonObject,
    at: FieldPath,
    more: { labels?: Record<string, string>; upload?: Upload } = {},
  ): boolean {
    const before = this.#fields.length;
    const here = this.#locate(at, "key");
    const twin = this.#desired.find((other) => other.kind === kind && other.name === name);
    if (twin)
      this.#fields.push({ path: here, message: `"${name}" is also the name of what ${twin.where} says` });
    const labels = { ...more.labels, ...this.#labels };
    for (const issue of nameSchema.safeParse(name).error?.issues ?? []) {
      this.#fields.push({ path: here, message: `the name "${name}" ${issue.message}` });
    }
    for (const issue of labelsSchema.safeParse(labels).error?.issues ?? []) {
      this.#fields.push(...describeIssue({ ...issue, path: [...at, "labels", ...issue.path] }, this.#locate));
    }
    for (const issue of kind.spec.safeParse(spec, { reportInput: true }).error?.issues ?? []) {
      const path = issue.path.map((part) => fileKeys[String(part)] ?? part);
      this.#fields.push(...describeIssue({ ...issue, path: [...at, ...path] }, this.#locate));
    }
    if (this.#fields.length > before) return false;
    this.#desired.push({
      kind,
      name,
      ...(kind.scope === "project" ? { project: this.#project } : {}),
      labels,
      spec,
      where: here,
      ...(more.upload ? { upload: more.upload } : {}),
    });
    return true;
  }

  /** Sections whose entries are specs as the API has them; `order`: of images and instances. */
  addPlain(stack: Stack, order: "before" | "after"): void {
    for (const { section, kind, created } of plainSections) {
      if (created !== order) continue;
      for (const [name, entry] of Object.entries(stack[section])) {
        this.add(kind, name, withoutUndefined(entry as object), [section, name]);
      }
    }
  }

  /** Errors that `action` throws belong to that place in the file. */
  attempt(at: FieldPath, action: () => void): void {
    try {
      action();
    } catch (error) {
      if (!hasCode(error, "Invalid")) throw error;
      this.#fields.push({ path: this.#locate(at, "key"), message: error.message });
    }
  }

  finish(): Desired[] {
    const instances = this.#desired.filter((desired) => desired.kind === instanceKind).length;
    if (instances > stackLimits.instances) {
      this.#fields.push({
        path: this.#locate(["instances"], "key"),
        message: `${instances} instances are too many for one stack`,
        allowed: `up to ${stackLimits.instances}`,
      });
    }
    if (this.#fields.length > 0) {
      throw new StrataError("Invalid", "the stack is not valid; nothing was changed", {
        fields: this.#fields,
      });
    }
    return this.#desired;
  }
}

function publicKeyOf(entry: Stack["keyPairs"][string], files: StackFiles): string {
  if ((entry.file === undefined) === (entry.publicKey === undefined)) {
    throw new StrataError("Invalid", "needs either file or publicKey");
  }
  return (entry.publicKey ?? textOf(files, entry.file ?? "")).trim();
}

function imageSource(entry: ImageEntry, files: StackFiles): JsonObject {
  const sources = (["debian", "catalogue", "url", "file", "build", "simplestreams"] as const).filter(
    (key) => entry[key] !== undefined,
  );
  const [source] = sources;
  if (sources.length !== 1 || source === undefined) {
    throw new StrataError(
      "Invalid",
      "needs exactly one of debian, catalogue, url, file, build and simplestreams",
    );
  }
  const fitting: Record<typeof source, readonly (keyof ImageEntry)[]> = {
    debian: ["packages"],
    catalogue: [],
    url: ["sha256", "format", "boot"],
    file: ["sha256", "format", "boot"],
    build: ["dockerfile", "args", "target"],
    simplestreams: ["alias"],
  };
  const details = ["packages", "sha256", "format", "boot", "alias", "dockerfile", "args", "target"] as const;
  for (const key of details) {
    if (entry[key] !== undefined && !fitting[source].includes(key)) {
      throw new StrataError("Invalid", `${key} has no meaning for an image from ${source}`);
    }
  }
  if (source === "catalogue") return withoutUndefined({ type: "catalogue", name: entry.catalogue });
  if (source === "debian") {
    return withoutUndefined({ type: "debian", suite: entry.debian, packages: entry.packages });
  }
  if (source === "simplestreams") {
    return withoutUndefined({ type: "simplestreams", server: entry.simplestreams, alias: entry.alias });
  }
  if (source === "build") return dockerfileSource(entry, files);
  const format = entry.format ?? formatOf(entry.url ?? entry.file ?? "");
  if (source === "url")
    return withoutUndefined({ type: "url", url: entry.url, sha256: entry.sha256, format, boot: entry.boot });
  const sha256 = files.images.get(entry.file ?? "")?.sha256;
  if (entry.sha256 !== undefined && entry.sha256 !== sha256) {
    throw new StrataError("Invalid", `${entry.file} has the SHA-256 checksum ${sha256}, not ${entry.sha256}`);
  }
  // The name of the upload is known only once it was sent.
  return withoutUndefined({ type: "upload", upload: "", format, sha256, boot: entry.boot });
}

/** The name of the upload is known only once it was sent. */
function dockerfileSource(entry: ImageEntry, files: StackFiles): JsonObject {
  const { dockerfile: file = defaultDockerfile, args, target } = entry;
  const sha256 = contextOf(entry, files)?.sha256;
  return withoutUndefined({ type: "dockerfile", upload: "", file, args, target, sha256 });
}

function contextOf(entry: ImageEntry, files: StackFiles): Upload | undefined {
  return entry.build === undefined ? undefined : files.contexts.get(contextKey(entry));
}

/** What an archive is, by its name. */
export function formatOf(path: string): ArtefactFormat {
  const ending = /\.([a-z0-9]+)(?:\.(?:gz|xz|zst))?$/i.exec(path)?.[1]?.toLowerCase() ?? "";
  if (ending === "img") return "qcow2"; // as clouds name them
  return artefactFormats.find((format) => format === ending) ?? "tar";
}

function instanceSpec(entry: InstanceEntry, files: StackFiles): JsonObject {
  const { count: _count, labels: _labels, memory, disk, userData, files: wanted = [], ...same } = entry;
  if (userData && (userData.file === undefined) === (userData.text === undefined)) {
    throw new StrataError("Invalid", "userData needs either text or file");
  }
  const text = userData?.file === undefined ? userData?.text : textOf(files, userData.file);
  const guestFiles: GuestFile[] = wanted.map((file) => ({
    path: file.path,
    content: contentOf(files, file.source),
    mode: file.mode,
    owner: file.owner,
  }));
  const complete = guestFiles.length > 0 ? withFiles(text, guestFiles) : text;
  return withoutUndefined({ ...same, memoryMib: memory, diskMib: disk, userData: complete });
}

function contentOf(files: StackFiles, path: string): Uint8Array {
  const content = files.contents.get(path);
  if (!content) throw new StrataError("Internal", `the file ${path} was not read`);
  return content;
}

function textOf(files: StackFiles, path: string): string {
  return Buffer.from(contentOf(files, path)).toString("utf8");
}

function withoutUndefined(value: object): JsonObject {
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, Json] => entry[1] !== undefined),
  );
}
