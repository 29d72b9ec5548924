/**
 * Layers as one tree: which entry of which layer is in it, and under which names. Pure. Rules: image-spec 1.1, "Image
 * Layer Filesystem Changeset": a file named `.wh.NAME` takes NAME of the layers below away, `.wh..wh..opq` all that these
 * have in its directory; both count for lower layers only, wherever they stand in their own.
 */
import { StrataError } from "../../../core/errors.ts";
import type { TarType } from "../../../core/tar-writer.ts";
import { show } from "../tar-reader.ts";

export interface LayerEntry {
  path: string;
  type: TarType;
  /** Of links. */
  target: string;
}

/** An entry by its layer, and by its number within. */
export type EntryId = string;
export const entryId = (layer: number, index: number): EntryId => `${layer}.${index}`;

interface Placed {
  layer: number;
  type: TarType;
  /** Of the entry that has the content: a hard link's is another one. */
  content: EntryId;
}

interface Node {
  placed?: Placed;
  children: Map<string, Node>;
}

/** As of root archives; it also bounds how deep the tree is. */
const maxPathBytes = 4000;
const whiteout = ".wh.";
const opaque = ".wh..wh..opq";

export class LayerMerge {
  readonly #root: Node = { children: new Map() };
  #layer = -1;

  /** Adds a layer above the others. @throws Invalid for entries that climb, or lie below what is no directory. */
  add(entries: readonly LayerEntry[]): void {
    const layer = ++this.#layer;
    const named = entries.map((entry) => ({ ...entry, names: namesOf(entry.path) }));
    for (const { names } of named) {
      const last = names.at(-1) ?? "";
      if (last === opaque) this.#find(names.slice(0, -1))?.children.clear();
      else if (last.startsWith(whiteout)) this.#remove(names, last);
    }
    for (const [index, entry] of named.entries()) {
      if ((entry.names.at(-1) ?? "").startsWith(whiteout)) continue;
      this.#place(entry, entry.names, layer, index);
    }
  }

  /** Final paths by the entry that has the content; of more than one, the others are hard links to the first. */
  paths(): Map<EntryId, string[]> {
    const found = new Map<EntryId, string[]>();
    const visit = (node: Node, path: string) => {
      if (node.placed) {
        const paths = found.get(node.placed.content);
        if (paths) paths.push(path);
        else found.set(node.placed.content, [path]);
      }
      for (const [name, child] of node.children) visit(child, path === "" ? name : `${path}/${name}`);
    };
    visit(this.#root, "");
    return found;
  }

  #place(entry: LayerEntry, names: readonly string[], layer: number, index: number): void {
    let node = this.#root;
    for (const [depth, name] of names.entries()) {
      const { placed } = node;
      if (placed && placed.type !== "directory") {
        throw refuse(
          entry.path,
          `lies below "${show(names.slice(0, depth).join("/"))}", which is no directory`,
        );
      }
      let next = node.children.get(name);
      if (!next) {
        next = { children: new Map() };
        node.children.set(name, next);
      }
      node = next;
    }
    const directory = entry.type === "directory";
    if (node.placed?.layer === layer && !directory) throw refuse(entry.path, "is in its layer twice");
    if (!directory) node.children.clear();
    const content = entry.type === "hardlink" ? this.#contentOf(entry) : entryId(layer, index);
    node.placed = { layer, type: entry.type === "hardlink" ? "file" : entry.type, content };
  }

  #contentOf({ path, target }: LayerEntry): EntryId {
    const placed = this.#find(namesOf(target))?.placed;
    if (placed?.type === "file") return placed.content;
    throw refuse(path, `is a hard link to "${show(target)}", which is no file of it or of the layers below`);
  }

  #remove(names: readonly string[], last: string): void {
    const removed = last.slice(whiteout.length);
    if (removed === "" || removed === "." || removed === "..")
      throw refuse(names.join("/"), "takes away what has no name");
    this.#find(names.slice(0, -1))?.children.delete(removed);
  }

  #find(names: readonly string[]): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of names) node = node?.children.get(name);
    return node;
  }
}

function namesOf(path: string): string[] {
  if (path.includes("\0")) throw refuse(path, "is no path");
  if (Buffer.byteLength(path) > maxPathBytes) throw refuse(path, "has too long a path");
  if (path.startsWith("/")) throw refuse(path, "is absolute");
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) throw refuse(path, 'climbs with ".."');
  return names;
}

function refuse(path: string, what: string): StrataError {
  return new StrataError("Invalid", `the layer's "${show(path)}" ${what}`);
}
