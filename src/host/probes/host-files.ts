import { constants } from "node:fs";
import { access, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";

/** The host's files, below `root`. What cannot be read is not there: probes describe, they do not fail. */
export class HostFiles {
  readonly #root: string;

  constructor(root = "/") {
    this.#root = root;
  }

  /** Without spaces around; "" when absent. */
  async text(path: string): Promise<string> {
    return (await readFile(join(this.#root, path), "utf8").catch(() => "")).trim();
  }

  async entries(path: string): Promise<string[]> {
    return (await readdir(join(this.#root, path)).catch((): string[] => [])).sort();
  }

  /** Where a symbolic link leads; "" when there is none. */
  async link(path: string): Promise<string> {
    return await readlink(join(this.#root, path)).catch(() => "");
  }

  async has(path: string): Promise<boolean> {
    return await access(join(this.#root, path), constants.F_OK).then(
      () => true,
      () => false,
    );
  }
}
