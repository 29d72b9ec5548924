import type { NetworkAttachment, NetworkRequest, Networks } from "../../host/networks/networks.ts";

/** Told of each attachment that is made, and, without one, of each network that is taken away. */
export type AttachmentListener = (uid: string, attachment: NetworkAttachment | undefined) => void;

interface Made {
  /** The request as text: another one means that the network has to be changed. */
  text: string;
  promise: Promise<NetworkAttachment>;
  done: boolean;
}

/**
 * How guests join the networks of this host. A network is made on its first use and then remembered, so that the next
 * guest in it costs nothing, until its structure changes; whoever hears that it may be broken calls `doubt`. Callers
 * that come together share one attempt.
 */
export class NetworkAttachments {
  readonly #networks: Networks;
  readonly #known = new Map<string, Made>();
  /** By network uid; also while a network is being mended. */
  readonly #attached = new Map<string, NetworkAttachment>();
  readonly #listeners: AttachmentListener[] = [];

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  /** Makes, changes or mends the network unless it is as requested. @throws what ensure throws. */
  attach(request: NetworkRequest, signal: AbortSignal): Promise<NetworkAttachment> {
    const { uid } = request;
    const text = JSON.stringify(request);
    const before = this.#known.get(uid);
    if (before?.text === text) return before.promise;
    // An older form that is still being made must not come after this one.
    const settled = before && !before.done ? before.promise.then(ignore, ignore) : undefined;
    const promise = settled
      ? settled.then(() => this.#networks.ensure(request, signal))
      : this.#networks.ensure(request, signal);
    const made: Made = { text, promise, done: false };
    this.#known.set(uid, made);
    promise.then(
      (attachment) => {
        made.done = true;
        if (this.#known.get(uid) !== made) return;
        this.#attached.set(uid, attachment);
        for (const listener of this.#listeners) listener(uid, attachment);
      },
      () => {
        // Also when the first caller gave up: the next one begins anew.
        if (this.#known.get(uid) === made) this.#known.delete(uid);
      },
    );
    return promise;
  }

  /** It is as requested, as far as is known. */
  isMade(request: NetworkRequest): boolean {
    const known = this.#known.get(request.uid);
    return known?.done === true && known.text === JSON.stringify(request);
  }

  /** It was made in some form and not doubted since. */
  isKnown(uid: string): boolean {
    return this.#known.get(uid)?.done === true;
  }

  /** The last one known. */
  get(uid: string): NetworkAttachment | undefined {
    return this.#attached.get(uid);
  }

  doubt(uid: string): void {
    this.#known.delete(uid);
  }

  /** It is taken away. */
  forget(uid: string): void {
    this.#known.delete(uid);
    if (!this.#attached.delete(uid)) return;
    for (const listener of this.#listeners) listener(uid, undefined);
  }

  /** Listeners must not throw. */
  onChange(listener: AttachmentListener): void {
    this.#listeners.push(listener);
  }
}

function ignore(): void {}
