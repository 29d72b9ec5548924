/** The native API without a network: a Client over the services in the same process. For simulations and tests. */
import type { Client, ListOptions, WatchEvent } from "../src/client/client.ts";
import type { ControllerVerbs } from "../src/controllers/context.ts";
import { StrataError } from "../src/core/errors.ts";
import type { Ref } from "../src/kinds/keys.ts";
import type { Kind, Resource } from "../src/kinds/kind.ts";
import { systemPrincipal } from "../src/services/principal.ts";
import type { Services } from "../src/services/services.ts";
import { afterRevision } from "../src/services/watching.ts";

/** What a call goes through: a link that may delay, fail or lose the answer. */
export type Link = <T>(name: string, call: () => Promise<T>) => Promise<T>;

const perfect: Link = (_name, call) => call();

export function controllerVerbs({ resources, recordEvent }: Services): ControllerVerbs {
  return {
    removeFinalizer: (kind, ref, uid, finalizer) =>
      resources.removeFinalizer(systemPrincipal, kind, ref, uid, finalizer),
    delete: (kind, ref) => resources.delete(systemPrincipal, kind, ref),
    recordEvent,
    create: (kind, draft, origin) => resources.createOwned(systemPrincipal, kind, draft, origin),
    patchSpec: (kind, ref, spec) => resources.patch(systemPrincipal, kind, ref, { spec }),
    patchStatus: (kind, ref, uid, patch) => resources.patchStatus(systemPrincipal, kind, ref, uid, patch),
  };
}

export function createServiceClient({ resources, metrics }: Services, link: Link = perfect): Client {
  const me = systemPrincipal;
  const ifRevision = (options?: { ifRevision?: number }) =>
    options?.ifRevision === undefined ? {} : { ifRevision: options.ifRevision };
  const refOf = (kind: Kind, { project, name }: Ref): Ref =>
    kind.scope === "project" && project !== undefined ? { project, name } : { name };
  const any = (kind: unknown) => kind as Kind;

  async function* watch<S, T>(
    kind: Kind<S, T>,
    { after, ...filter }: ListOptions & { after: number },
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<Resource<S, T>>> {
    const events = await link("watch", () =>
      resources.watch(me, any(kind), { ...filter, from: afterRevision(after) }, signal),
    );
    for await (const event of events) {
      await link("event", async () => {});
      if (event.type === "put") yield { type: "put", resource: event.resource as Resource<S, T> };
      else yield { type: "delete", ref: event.ref };
    }
  }

  const client: Partial<Client> = {
    get: (kind, ref) => link("get", () => resources.get(me, kind, refOf(any(kind), ref))),
    require: (kind, ref) => link("get", () => resources.require(me, kind, refOf(any(kind), ref))),
    async list<S, T>(kind: Kind<S, T>, options: ListOptions) {
      const items: Resource<S, T>[] = [];
      let after: string | undefined;
      for (;;) {
        const query = { ...options, limit: 1000, ...(after === undefined ? {} : { after }) };
        const page = await link("list", () => resources.list(me, any(kind), query));
        items.push(...(page.items as Resource<S, T>[]));
        if (page.next === undefined) return { items, revision: page.revision };
        after = page.next;
      }
    },
    create: (kind, resource, options) =>
      link("create", () => resources.create(me, kind, resource, ifRevision(options))),
    apply: (kind, resource, options) =>
      link("apply", async () => (await resources.apply(me, kind, resource, ifRevision(options))).resource),
    patch: (kind, ref, patch, options) =>
      link("patch", () => resources.patch(me, kind, refOf(any(kind), ref), patch, ifRevision(options))),
    patchStatus: (kind, ref, uid, patch, options) =>
      link("patchStatus", () =>
        resources.patchStatus(me, kind, refOf(any(kind), ref), uid, patch, ifRevision(options)),
      ),
    removeFinalizer: (kind, ref, uid, finalizer) =>
      link("removeFinalizer", () =>
        resources.removeFinalizer(me, kind, refOf(any(kind), ref), uid, finalizer),
      ),
    delete: (kind, ref, options) =>
      link("delete", async () => {
        await resources.delete(me, kind, refOf(any(kind), ref), ifRevision(options));
      }),
    watch,
    reportMetrics: (report) => link("reportMetrics", () => metrics.report(me, report)),
    async *sessionRequests(_host, signal) {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    },
    version: async () => ({ version: "0", apiVersion: "v1" }),
  };
  return new Proxy(client as Client, {
    get(target, name: keyof Client) {
      if (target[name] !== undefined) return target[name];
      return () => Promise.reject(new StrataError("Unsupported", `the in-process client has no ${name}`));
    },
  });
}
