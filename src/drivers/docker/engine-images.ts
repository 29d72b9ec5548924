/**
 * Images in the Engine's store: each imported once from its root tree, as one layer, and removed when no container of
 * ours uses it. Only images with our label are used or removed; one that others use as well merely loses our name.
 */
import { StrataError } from "../../core/errors.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import { withTreeArchive } from "../../host/images/tree-archive.ts";
import type { GuestRoot } from "../driver.ts";
import { type Engine, importTimeoutMs } from "./engine.ts";
import { lastMessage } from "./engine-messages.ts";
import { imageTag, labels } from "./labels.ts";

type ImageRoot = Extract<GuestRoot, { type: "image" }>;

export class EngineImages {
  readonly #engine: Engine;
  readonly #namespace: string;
  /** One change at a time to each image, so that callers who want the same one share an import. */
  readonly #lock = new KeyedLock();

  constructor(engine: Engine, namespace: string) {
    this.#engine = engine;
    this.#namespace = namespace;
  }

  /**
   * Makes sure that the image is there while `use` makes a container of it. An import that was interrupted leaves
   * nothing: the Engine drops a layer that was not sent to its end.
   */
  async using<T>(root: ImageRoot, signal: AbortSignal, use: () => Promise<T>): Promise<T> {
    return await this.#lock.run(root.digest, async () => {
      if (!(await this.has(root.digest, signal))) await this.#import(root, signal);
      return await use();
    });
  }

  /** Removes the image unless a container of ours needs it. */
  async release(digest: string, signal: AbortSignal): Promise<void> {
    await this.#lock.run(digest, async () => {
      const { name } = imageTag(this.#namespace, digest);
      const users = await this.#engine.containers({
        label: [`${labels.namespace}=${this.#namespace}`, `${labels.image}=${digest}`],
      });
      if (users.length > 0 || !(await this.has(digest, signal))) return;
      await this.#engine.call(
        `remove image ${name}`,
        (docker, abortSignal) => docker.getImage(name).remove({ abortSignal }),
        // 409: somebody else made a container of it.
        { signal, accept: [404, 409] },
      );
    });
  }

  /** Is it imported? One of others with our name is not. */
  async has(digest: string, signal: AbortSignal): Promise<boolean> {
    const found = await this.#find(digest, signal);
    const own = found?.Config?.Labels ?? {};
    return own[labels.namespace] === this.#namespace && own[labels.image] === digest;
  }

  async #find(digest: string, signal: AbortSignal) {
    const { name } = imageTag(this.#namespace, digest);
    return await this.#engine.call(`look at image ${name}`, (docker) => docker.getImage(name).inspect(), {
      signal,
      accept: [404],
    });
  }

  async #import(root: ImageRoot, signal: AbortSignal): Promise<void> {
    const { repo, tag, name } = imageTag(this.#namespace, root.digest);
    if ((await this.#find(root.digest, signal)) !== undefined) {
      throw new StrataError(
        "Conflict",
        `the Docker image ${name} was not made by Strata; it is left alone, remove or rename it to go on`,
      );
    }
    const changes = [`LABEL ${labels.namespace}=${this.#namespace}`, `LABEL ${labels.image}=${root.digest}`];
    const answer = await withTreeArchive(root, (archive) =>
      this.#engine.ask(
        `import image ${name}`,
        async (docker, abortSignal) =>
          await lastMessage(await docker.importImage(archive, { repo, tag, changes, abortSignal } as object)),
        { signal, timeoutMs: importTimeoutMs },
      ),
    );
    if (answer.error === undefined && (await this.has(root.digest, signal))) return;
    throw new StrataError(
      "Unavailable",
      `the Docker Engine cannot import image ${name}: ${answer.error ?? "it gave no reason"}`,
    );
  }
}
