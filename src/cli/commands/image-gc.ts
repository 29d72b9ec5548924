/** `image gc`, and what it keeps. */
import { hasCode } from "../../core/errors.ts";
import { groupKind } from "../../kinds/group.ts";
import { type Image, imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { ArgumentSpec, Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson, imageForm } from "../show.ts";

const group = "Images and keys";
const names: ArgumentSpec = {
  name: "<name...>",
  summary: "names or beginnings of ids",
  completes: "images",
};

export const imageGcCommands: readonly CommandSpec[] = [
  {
    path: "image gc",
    group,
    summary: "Delete the project's images that nothing uses and that are not protected",
    options: [{ flags: "--dry-run", summary: "only list them" }],
    examples: ["strata image gc --dry-run", "strata image gc"],
    run: collectGarbage,
  },
  {
    path: "image protect",
    group,
    summary: "Keep images: they cannot be deleted, and gc leaves them",
    arguments: [names],
    examples: ["strata image protect debian12"],
    run: (call) => setProtected(call, true),
  },
  {
    path: "image unprotect",
    group,
    summary: "Let protected images be deleted again",
    arguments: [names],
    examples: ["strata image unprotect debian12"],
    run: (call) => setProtected(call, false),
  },
];

/** Images that are finished, not protected, and named by nothing. Pure. */
export function unusedImages(images: readonly Image[], used: ReadonlySet<string>): Image[] {
  return images.filter(({ metadata, spec, status }) => {
    const finished = status.state === "ready" || status.state === "failed";
    return finished && metadata.deletedAt === undefined && !spec.protected && !used.has(metadata.name);
  });
}

async function collectGarbage(call: Call): Promise<Output> {
  const { session, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const listing = { project };
  const { items: images } = await client.list(imageKind, listing, { signal });
  const { items: instances } = await client.list(instanceKind, listing, { signal });
  const { items: groups } = await client.list(groupKind, listing, { signal });
  const used = new Set([
    ...instances.map(({ spec }) => spec.image),
    ...groups.map(({ spec }) => spec.template.image),
  ]);
  const unused = unusedImages(images, used);
  const removed: Image[] = [];
  for (const image of unused) {
    if (!options.flag("dry-run")) {
      try {
        await client.delete(imageKind, { project, name: image.metadata.name }, { signal });
      } catch (error) {
        // Somebody began to use it meanwhile, or it is gone: the API decides.
        if (hasCode(error, "Conflict") || hasCode(error, "NotFound")) continue;
        throw error;
      }
    }
    removed.push(image);
  }
  return tableOf(removed, "every image is used or protected");
}

async function setProtected(call: Call, wanted: boolean): Promise<Output> {
  const { project, signal } = call.session;
  const client = await call.session.client();
  const changed: Image[] = [];
  for (const name of call.args) {
    const { metadata } = await resolve(client, imageKind, project, name, signal);
    const ref = { project, name: metadata.name };
    changed.push(await client.patch(imageKind, ref, { spec: { protected: wanted } }, { signal }));
  }
  return tableOf(changed, "no image");
}

function tableOf(images: readonly Image[], empty: string): Output {
  return {
    type: "table",
    columns: imageForm.columns,
    rows: images.map((image) => imageForm.row(image)),
    empty,
    json: images.map((image) => asJson(image)),
  };
}
