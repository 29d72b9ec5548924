/**
 * How Strata knows what is its own on an Engine that others use as well: by labels, never by a name alone. Whatever
 * lacks the label of our name space is neither listed nor touched.
 */
import { isUid, type Uid } from "../../core/ids.ts";

export const labels = {
  namespace: "strata.namespace",
  uid: "strata.uid",
  /** Of the driver's handles. */
  version: "strata.version",
  /** Digest of the image that a container or an Engine's image was made from. */
  image: "strata.image",
  /** Hash of what cannot change without losing a container's root. */
  recipe: "strata.recipe",
  /** On images of builds: `base` or `result`. */
  build: "strata.build",
  /** Times that the root was made anew; left out: 0. */
  generation: "strata.generation",
  /** On what `fingerprint` makes, instead of `uid`. */
  probe: "strata.probe",
} as const;

export type Labels = Readonly<Record<string, string>>;

/** The guest that a container or volume belongs to; undefined for what is not ours. */
export function ownerOf(found: Labels | null | undefined, namespace: string): Uid | undefined {
  const uid = found?.[labels.uid];
  return found?.[labels.namespace] === namespace && uid !== undefined && isUid(uid) ? uid : undefined;
}

/** Of a container's root. */
export function generationOf(found: Labels | null | undefined): number {
  return Number(found?.[labels.generation] ?? 0);
}

export function containerName(namespace: string, uid: Uid): string {
  return `${namespace}-${uid}`;
}

export function volumeName(namespace: string, uid: Uid, name: string): string {
  return `${namespace}-${uid}-${name}`;
}

/** Of an image in the Engine's store. The registry's name belongs to nobody: nothing can be pulled from there. */
export function imageTag(namespace: string, digest: string): { repo: string; tag: string; name: string } {
  const repo = `strata.local/${namespace}`;
  const tag = digest.replace(/^sha256:/, "");
  return { repo, tag, name: `${repo}:${tag}` };
}
