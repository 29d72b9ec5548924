/**
 * Published ports and floating addresses of this host's instances: carried out with their network's policy
 * (networks/network-policies.ts); here they are waited for and told.
 */
import { toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Address, addressKind } from "../../kinds/address.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { type PublishedPort, publishedPortKind } from "../../kinds/published-port.ts";
import type { CacheIndex, Versioned } from "../../reconcile/cache.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { joinNetwork } from "../interfaces/cards.ts";
import {
  addressPolicy,
  type Publication,
  portPolicy,
  publicationOfAddress,
  publicationOfPort,
} from "../networks/policy.ts";
import { reportStatus } from "../report.ts";
import type { ResourceView } from "../resource-view.ts";
import { instanceKeyOf, networkKeyOf } from "../views.ts";
import { type PublishAction, type PublishWorld, planAddress, planPort } from "./plan.ts";

export function createPortReconciler(context: AgentContext) {
  return publishReconciler<PublishedPort["spec"], PublishedPort["status"], PublishedPort>(context, {
    kind: publishedPortKind,
    view: context.views.publishedPorts,
    byInstance: context.views.publishedPortsByInstance,
    plan: planPort,
    publication: (port, instance) => portPolicy({ port, instance }).map(publicationOfPort)[0],
  });
}

export function createAddressReconciler(context: AgentContext) {
  return publishReconciler<Address["spec"], Address["status"], Address>(context, {
    kind: addressKind,
    view: context.views.addresses,
    byInstance: context.views.addressesByInstance,
    plan: planAddress,
    publication: (address, instance) => addressPolicy({ address, instance }).map(publicationOfAddress)[0],
  });
}

interface Publishing<S, T extends object, R extends Resource<S, T> & Versioned> {
  kind: Kind<S, T>;
  view: ResourceView<S, T>;
  byInstance: CacheIndex<R>;
  plan: Reconciler<PublishWorld<R>, PublishAction, T>["plan"];
  publication(resource: R, instance: NonNullable<PublishWorld<R>["instance"]>): Publication | undefined;
}

function publishReconciler<
  S extends { instance?: string | undefined },
  T extends { state: string; message: string },
  R extends Resource<S, T>,
>(context: AgentContext, of: Publishing<S, T, R>): Reconciler<PublishWorld<R>, PublishAction, T> {
  const { views, client, policies } = context;
  const related = new Hints();
  views.instances.onChange((key, next, previous) => {
    if (next && previous && next.metadata.deletedAt === previous.metadata.deletedAt) return;
    for (const one of of.byInstance.keysOf(key)) related.hint(one);
  });
  const tell = (resource: R, status: T, signal: AbortSignal) =>
    reportStatus(client, of.kind, of.view, resource, status, signal);
  return {
    name: of.kind.plural,
    watches: [
      { name: of.kind.plural, urgent: true, keys: (signal) => of.view.watchKeys(signal) },
      { name: "instances", keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      const resource = of.view.get(key) as R | undefined;
      const instanceKey = resource && instanceKeyOf(resource);
      const instance = instanceKey === undefined ? undefined : views.instances.get(instanceKey);
      const publication = resource && instance && of.publication(resource, instance);
      const inForce =
        instance !== undefined &&
        publication !== undefined &&
        policies.isPublished(networkKeyOf(instance), publication);
      return { resource, instance, publication, inForce };
    },
    plan: of.plan,
    /** What leads elsewhere in another network has to go first: there is only one of a name. */
    async execute({ instance, publication }, signal) {
      const own = networkKeyOf(instance);
      for (const key of policies.publishersOf(publication.name)) if (key !== own) await policies.apply(key);
      await joinNetwork(context, instance, signal);
    },
    async report(_key, { resource }, status, signal) {
      if (resource) await tell(resource, status, signal);
    },
    async failed(key, { error, world, retryAfterMs }, signal) {
      const resource = of.view.get(key) as R | undefined;
      if (!resource || !world?.instance) return;
      const failure = toStrataError(error, `publish "${resource.metadata.name}"`);
      const seconds = Math.max(1, Math.round(retryAfterMs / 1000));
      const message = `${failure.message}; trying again in ${seconds} s`.slice(0, 1000);
      await tell(resource, { ...resource.status, state: "failed", message }, signal);
    },
  };
}
