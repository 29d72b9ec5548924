import { StrataError } from "../core/errors.ts";
import type { Image, imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { ResourceOf } from "../kinds/kind.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";

type Hooks =
  ResourceOf<typeof imageKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/** Uploads that images may name; absent where the API takes none. */
export interface KnownUploads {
  has(upload: string): Promise<boolean>;
}

const namesInMessage = 5;

export function imageHooks(uploads: KnownUploads | undefined): Hooks {
  return {
    async admit(image, _world, action) {
      const { source } = image.spec;
      if (source.type !== "upload" || !uploads || (await uploads.has(source.upload))) return {};
      const message = `names the upload "${source.upload.slice(0, 40)}", which is not there`;
      const allowed = "the name that POST /v1/uploads gave, within an hour";
      throw invalid(action, [{ path: "spec.source.upload", message, allowed }]);
    },
    async checkDelete(image, world, mode) {
      if (mode.withProject) return;
      const users = await usersOf(image, world);
      if (users.length === 0) return;
      const shown = users.slice(0, namesInMessage).map((name) => `"${name}"`);
      const more = users.length > namesInMessage ? " and more" : "";
      throw new StrataError(
        "Conflict",
        `cannot delete image "${image.metadata.name}": it is the image of ${users.length === 1 ? "instance" : "instances"} ` +
          `${shown.join(", ")}${more}; delete ${users.length === 1 ? "that" : "those"} first`,
      );
    },
    // Without a host, nobody has begun to make it.
    idleFinalizers: (image) => (image.status.host === undefined ? ["agent"] : []),
  };
}

async function usersOf(image: Image, world: World): Promise<string[]> {
  const users: string[] = [];
  for await (const instance of world.scan(instanceKind, image.metadata.project)) {
    if (instance.spec.image === image.metadata.name) users.push(instance.metadata.name);
    if (users.length > namesInMessage) break;
  }
  return users;
}
