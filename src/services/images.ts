import { StrataError } from "../core/errors.ts";
import type { Backup } from "../kinds/backup.ts";
import type { Image, ImageSource, imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { ResourceOf } from "../kinds/kind.ts";
import { requireBackup } from "./backups.ts";
import { groupsNaming } from "./group-users.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed, usersInMessage } from "./references.ts";
import { requireSnapshots } from "./snapshots.ts";

type Hooks =
  ResourceOf<typeof imageKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/** Uploads that images may name; absent where the API takes none. */
export interface KnownUploads {
  has(upload: string): Promise<boolean>;
}

export function imageHooks(uploads: KnownUploads | undefined): Hooks {
  return {
    async admit(image, world, action) {
      const { source } = image.spec;
      if (source.type === "instance") return admitOfInstance(image, source.instance, world, action);
      if (source.type === "backup") return admitOfBackup(image, source.backup, world, action);
      refuseBootOfArchives(source, action);
      if (!("upload" in source) || !uploads || (await uploads.has(source.upload))) return {};
      const message = `names the upload "${source.upload.slice(0, 40)}", which is not there`;
      const allowed = "the name that POST /v1/uploads gave, within an hour";
      throw invalid(action, [{ path: "spec.source.upload", message, allowed }]);
    },
    keptByApply: ["protected"],
    closing: closeReferences,
    async checkDelete(image, world, mode) {
      if (mode.withProject) return;
      refuseProtected(image);
      refuseWhileUsed(`image "${image.metadata.name}"`, await usersOf(image, world));
    },
    // Without a host, nobody has begun to make it.
    idleFinalizers: (image) => (image.status.host === undefined ? ["agent"] : []),
  };
}

/** It is made where the instance is. */
async function admitOfInstance(
  image: Image,
  name: string,
  world: World,
  action: string,
): Promise<Admission<Image["status"]>> {
  const references = new References(world, image.metadata.project ?? "");
  const instance = await references.peek(instanceKind, name, "spec.source.instance");
  references.check(action);
  if (!instance) return {};
  const { host, imageDigest } = instance.status;
  if (host === undefined || imageDigest === undefined) {
    const message = `is "${name}", which has not started so far: there is nothing on it yet`;
    throw conflict(action, { path: "spec.source.instance", message, allowed: "instances that have run" });
  }
  await requireSnapshots(instance, host, world, action);
  const message = `waiting for host ${host} to make it`;
  return { status: { ...image.status, host, message } };
}

/** It is made where the backup was taken. */
async function admitOfBackup(
  image: Image,
  name: string,
  world: World,
  action: string,
): Promise<Admission<Image["status"]>> {
  const references = new References(world, image.metadata.project ?? "");
  const path = "spec.source.backup";
  const backup = await requireBackup(name, references, path, action);
  if (!backup) return {};
  if (backup.status.root === undefined) {
    const message = `is "${name}", which is of a volume`;
    throw invalid(action, [{ path, message, allowed: "backups of instances" }]);
  }
  return { status: ofBackupStatus(image.status, backup), writes: references.writes() };
}

/** How an image of a backup begins. */
export function ofBackupStatus(status: Image["status"], { status: { host } }: Backup): Image["status"] {
  const message = `waiting for host ${host ?? ""} to restore it`;
  return { ...status, ...(host === undefined ? {} : { host }), message };
}

const archives: ReadonlySet<string> = new Set(["tar", "oci", "docker", "lxc"]);

function refuseBootOfArchives(source: ImageSource, action: string): void {
  if (!("boot" in source) || source.boot === undefined || !archives.has(source.format)) return;
  const message = "is for disks; an archive has no boot loader of its own";
  throw invalid(action, [{ path: "spec.source.boot", message, allowed: "nothing, or another format" }]);
}

function refuseProtected({ metadata: { name }, spec }: Image): void {
  if (!spec.protected) return;
  throw new StrataError(
    "Conflict",
    `image "${name}" is protected against deletion; set its spec.protected to false first ` +
      `(\`strata image unprotect ${name}\`)`,
  );
}

async function usersOf(image: Image, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const instance of world.scan(instanceKind, image.metadata.project)) {
    if (instance.spec.image === image.metadata.name) users.push(`instance "${instance.metadata.name}"`);
    if (users.length > usersInMessage) return users;
  }
  users.push(...(await groupsNaming(image, world, (template) => template.image)));
  return users;
}
