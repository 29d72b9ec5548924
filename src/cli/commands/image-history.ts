/** `image history`: where an image came from, and who uses it. */
import { formatBytes } from "../../core/units.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { type Image, imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Branch, Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson, sourceText } from "../show.ts";

export const imageHistoryCommand: CommandSpec = {
  path: "image history",
  group: "Images and keys",
  summary: "Show where an image came from, the steps that made it, and who uses it",
  arguments: [{ name: "<name>", summary: "name or beginning of the id", completes: "images" }],
  examples: ["strata image history web"],
  run: history,
};

async function history(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const image = await resolve(client, imageKind, project, args[0] ?? "", signal);
  const [images, instances, groups] = await Promise.all([
    client.list(imageKind, { project }, { signal }),
    client.list(instanceKind, { project }, { signal }),
    client.list(groupKind, { project }, { signal }),
  ]);
  const found = usersOf(image, { images: images.items, instances: instances.items, groups: groups.items });
  const { metadata, spec, status } = image;
  const { digest = null, origin = null } = status;
  const json = { name: metadata.name, createdAt: metadata.createdAt, source: spec.source, digest, origin };
  return { type: "tree", branches: historyOf(image, found), json: asJson({ ...json, ...found }) };
}

/** Names of what was made from an image, and of images with the same content. */
interface ImageUsers {
  instances: string[];
  groups: string[];
  sameContent: string[];
}

/** Pure. An instance counts by the image that it names, and by the content that its root was made from. */
export function usersOf(
  image: Image,
  all: { images: readonly Image[]; instances: readonly Instance[]; groups: readonly Group[] },
): ImageUsers {
  const { name, uid } = image.metadata;
  const { digest } = image.status;
  const has = (other: string | undefined) => digest !== undefined && other === digest;
  return {
    instances: all.instances
      .filter(({ spec, status }) => spec.image === name || has(status.imageDigest))
      .map(({ metadata }) => metadata.name),
    groups: all.groups
      .filter(({ spec }) => spec.template.image === name)
      .map(({ metadata }) => metadata.name),
    sameContent: all.images
      .filter(({ metadata, status }) => metadata.uid !== uid && has(status.digest))
      .map(({ metadata }) => metadata.name),
  };
}

/** Pure. */
export function historyOf({ metadata, spec, status }: Image, users: ImageUsers): Branch[] {
  const { origin, digest, host, os, message } = status;
  const steps = origin?.steps.map(({ at = "", by }, index) => ({
    label: `${index + 1}`,
    value: [at, by].filter((text) => text !== "").join("  "),
  }));
  const list = (label: string, names: readonly string[], nobody: string): Branch => ({
    label,
    value: names.length > 0 ? names.join(", ") : { text: nobody, tone: "dim" },
  });
  return [
    {
      label: "source",
      value: `${spec.source.type}: ${sourceText(spec.source)}`,
      children: recipe(spec.source),
    },
    ...(origin?.artefact ? [read(origin.artefact)] : []),
    ...(steps && steps.length > 0 ? [{ label: "steps", children: steps }] : []),
    {
      label: "made",
      value: origin?.madeAt ?? status.state,
      children: [
        { label: "asked for", value: metadata.createdAt },
        ...(host ? [{ label: "host", value: host }] : []),
        ...(os ? [{ label: "system", value: os }] : []),
        ...(digest ? [{ label: "digest", value: digest }] : []),
        ...(message ? [{ label: "remark", value: message }] : []),
      ],
    },
    list("instances", users.instances, "none"),
    list("groups", users.groups, "none"),
    ...(users.sameContent.length > 0 ? [list("same content", users.sameContent, "")] : []),
  ];
}

function read({
  format,
  sha256,
  sizeBytes,
}: NonNullable<NonNullable<Image["status"]["origin"]>["artefact"]>) {
  return {
    label: "read from",
    value: `a file of format ${format}, ${formatBytes(sizeBytes)}`,
    children: [{ label: "sha256", value: sha256 }],
  };
}

/** What else the source says, but for what its own line has. */
function recipe(source: Image["spec"]["source"]): Branch[] {
  const { type: _type, ...rest } = source;
  return Object.entries(rest)
    .filter(([, value]) => !isEmpty(value))
    .map(([label, value]) => ({
      label,
      value: typeof value === "object" ? JSON.stringify(value) : String(value),
    }));
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === "") return true;
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}
