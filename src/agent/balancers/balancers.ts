/**
 * Load balancers of this host: HAProxy is made to lead where their statuses say, and tells of its servers. Nothing is
 * remembered that HAProxy could be asked for, so either may be killed at any time.
 */
import { toTimestamp } from "../../core/clock.ts";
import { describeError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { Balancers } from "../../host/balancers/balancers.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import type { Ref } from "../../kinds/keys.ts";
import { type LoadBalancer, type LoadBalancerStatus, loadBalancerKind } from "../../kinds/load-balancer.ts";
import type { Failure, Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { siblingKey } from "../views.ts";
import { CertificateContents, fingerprintOf } from "./certificate-contents.ts";
import { type BalancerAction, type BalancerWorld, planBalancer } from "./plan.ts";
import { balancerRequest } from "./request.ts";
import { Traffic } from "./traffic.ts";

/** To be run by a runner; it measures until the agent stops. */
export function createBalancerReconciler(
  context: AgentContext,
  balancers: Balancers,
): Reconciler<BalancerWorld, BalancerAction, LoadBalancerStatus> {
  const reconciler = new BalancerReconciler(context, balancers);
  void reconciler.measureUntilAborted();
  return reconciler;
}

/** Between looks for figures that are worth a report. */
const lookEveryMs = 200;

class BalancerReconciler implements Reconciler<BalancerWorld, BalancerAction, LoadBalancerStatus> {
  readonly name = "balancers";
  readonly watches: readonly Watch[];
  readonly #context: AgentContext;
  readonly #balancers: Balancers;
  readonly #contents: CertificateContents;
  /** By uid of the balancer. */
  readonly #traffic = new Map<string, Traffic>();
  #onTraffic = () => {};
  readonly #hints = new Hints();
  /** Uids of those whose finalizer is gone; what the view still shows of them is old. */
  readonly #finalized = new Set<string>();

  constructor(context: AgentContext, balancers: Balancers) {
    this.#context = context;
    this.#balancers = balancers;
    this.#contents = new CertificateContents(context.client, () => balancers.placeholder());
    const { loadBalancers } = context.views;
    this.watches = [
      { name: "balancers", urgent: true, keys: (signal) => loadBalancers.watchKeys(signal) },
      { name: "what balancers need", urgent: true, keys: (signal) => this.#hints.keys(signal) },
      { name: "ended balancers", urgent: true, keys: (signal) => this.#endedKeys(signal) },
    ];
    this.#follow();
    context.signal.addEventListener("abort", () => {
      for (const traffic of this.#traffic.values()) traffic.close();
    });
  }

  async observe(key: string, signal: AbortSignal): Promise<BalancerWorld> {
    const { views, hostName } = this.#context;
    const found = views.loadBalancers.get(key);
    const balancer = found && this.#finalized.has(found.metadata.uid) ? undefined : found;
    const world: BalancerWorld = {
      hostName,
      balancer,
      request: undefined,
      structure: "",
      serverNames: new Map(),
      fingerprints: new Map(),
      seen: undefined,
      waiting: [],
      held: 0,
    };
    const mine = balancer?.status.host === hostName && balancer.metadata.deletedAt === undefined;
    if (!mine) return world;
    const { uid } = balancer.metadata;
    const seen = await this.#balancers.observe(uid, signal);
    const { request, waiting } = await this.#request(balancer, signal);
    return {
      ...world,
      request,
      waiting,
      seen,
      structure: this.#balancers.structureOf(request),
      serverNames: new Map(request.servers.map((one) => [one, this.#balancers.serverName(one)])),
      fingerprints: new Map([...request.certificates].map(([name, pem]) => [name, fingerprintOf(pem)])),
      held: this.#traffic.get(uid)?.holder.count ?? 0,
    };
  }

  plan(world: BalancerWorld) {
    return planBalancer(world);
  }

  async execute(action: BalancerAction, signal: AbortSignal): Promise<void> {
    const host = this.#balancers;
    switch (action.type) {
      case "ensure":
        await this.#trafficOf(action.request.uid);
        return host.ensure(action.request, signal);
      case "add-server":
        return host.addServer(action.request, action.server);
      case "drain-server":
        return host.drainServer(action.uid, action.name);
      case "resume-server":
        return host.resumeServer(action.uid, action.name);
      case "remove-server":
        return void (await host.removeServer(action.uid, action.name));
      case "set-certificate":
        return host.setCertificate(action.uid, action.name, action.pem);
      case "set-challenges":
        return host.setChallenges(action.uid, action.challenges);
      case "remove":
        this.#traffic.get(action.uid)?.close();
        this.#traffic.delete(action.uid);
        return host.remove(action.uid);
      case "finalize": {
        const { metadata } = action.balancer;
        await this.#context.client.removeFinalizer(loadBalancerKind, metadata as Ref, metadata.uid, "agent", {
          signal,
        });
        this.#finalized.add(metadata.uid);
      }
    }
  }

  async report(
    _key: string,
    world: BalancerWorld,
    status: LoadBalancerStatus,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, views } = this.#context;
    if (!world.balancer) return;
    await this.#tellHolder(world, status);
    await reportStatus(client, loadBalancerKind, views.loadBalancers, world.balancer, status, signal);
  }

  async failed(key: string, failure: Failure<BalancerWorld>, signal: AbortSignal): Promise<void> {
    const balancer = this.#context.views.loadBalancers.get(key);
    if (!balancer || !failure.world?.balancer) return;
    const error = toStrataError(failure.error, `work on load balancer "${balancer.metadata.name}"`);
    const seconds = Math.max(1, Math.round(failure.retryAfterMs / 1000));
    const message = `${error.message}; trying again in ${seconds} s`.slice(0, 1000);
    const { client, views } = this.#context;
    const status = {
      ...balancer.status,
      state: "failed" as const,
      message,
      observedGeneration: balancer.metadata.generation,
    };
    await reportStatus(client, loadBalancerKind, views.loadBalancers, balancer, status, signal);
  }

  async #request(balancer: LoadBalancer, signal: AbortSignal) {
    const { views, attachments, hostName } = this.#context;
    const { project = "" } = balancer.metadata;
    const contents = new Map<string, string>();
    for (const name of new Set(balancer.spec.listeners.flatMap((listener) => listener.certificates))) {
      const certificate = views.certificates.get(siblingKey(certificateKind, balancer, name));
      contents.set(name, await this.#contents.get(certificate, signal));
    }
    return balancerRequest({
      balancer,
      sourceOf: (uid) =>
        attachments.get(uid)?.hostAddress ?? views.networks.byUid(uid)?.status.hostAddresses[hostName],
      pemOf: (name) => contents.get(name) ?? "",
      certificates: [...views.certificatesByProject.keysOf(project)].flatMap(
        (one) => views.certificates.get(one) ?? [],
      ),
    });
  }

  async #trafficOf(uid: string): Promise<Traffic> {
    const known = this.#traffic.get(uid);
    if (known) return known;
    const { clock } = this.#context;
    const { loadBalancers } = this.#context.views;
    const resource = () => loadBalancers.byUid(uid);
    const onChange = () => {
      const balancer = resource();
      if (balancer) this.#hints.hint(loadBalancers.keyOf(balancer));
    };
    const traffic = new Traffic({ uid, balancers: this.#balancers, clock, resource, onChange });
    this.#traffic.set(uid, traffic);
    this.#onTraffic();
    try {
      await traffic.listen();
    } catch (error) {
      this.#traffic.delete(uid);
      throw error;
    }
    return traffic;
  }

  /** What cannot be measured or reported is left out: the next round is better than an old one. */
  async measureUntilAborted(): Promise<void> {
    const { clock, signal, views, client, logger } = this.#context;
    while (!signal.aborted) {
      if (this.#traffic.size === 0) await this.#untilTraffic(signal);
      await clock.sleep(lookEveryMs, signal).catch(() => {});
      const samples: { subject: string; uid: string; values: Record<string, number> }[] = [];
      for (const [uid, traffic] of this.#traffic) {
        const balancer = views.loadBalancers.byUid(uid);
        const values = balancer && (await traffic.news().catch(() => undefined));
        if (balancer && values) samples.push({ subject: views.loadBalancers.keyOf(balancer), uid, values });
      }
      if (samples.length === 0 || signal.aborted) continue;
      try {
        await client.reportMetrics({ at: toTimestamp(clock.now()), samples }, { signal });
      } catch (error) {
        if (!signal.aborted) logger.debug({ error: describeError(error) }, "figures of balancers were lost");
      }
    }
  }

  /** There is a balancer here, or the agent stops. */
  async #untilTraffic(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onTraffic = resolve;
    const stop = () => resolve();
    signal.addEventListener("abort", stop);
    if (!signal.aborted) await promise;
    signal.removeEventListener("abort", stop);
  }

  async #tellHolder({ request }: BalancerWorld, { servers }: LoadBalancerStatus): Promise<void> {
    if (!request) return;
    const { holder } = await this.#trafficOf(request.uid);
    const { spec } = request;
    const isHttp = spec.listeners.some(({ protocol }) => protocol.startsWith("http"));
    holder.set({
      targets: request.servers.filter(({ uid, draining }) => !draining && servers[uid]?.state === "up"),
      queueMs: spec.queueSeconds * 1000,
      connectMs: spec.timeouts.connectSeconds * 1000,
      protocol: isHttp ? spec.targetProtocol : "tcp",
    });
  }

  /** Certificates concern the balancers of their project, networks those that lead into them. */
  #follow(): void {
    const { views, attachments } = this.#context;
    const { loadBalancers } = views;
    views.certificates.onChange((_key, next, previous) => {
      const { project = "", uid } = (next ?? previous)?.metadata ?? { uid: "" };
      if (!next) this.#contents.forget(uid);
      for (const key of views.loadBalancersByProject.keysOf(project)) this.#hints.hint(key);
    });
    attachments.onChange((uid) => {
      for (const balancer of loadBalancers.values()) {
        if (!balancer.status.targets.some(({ network }) => network === uid)) continue;
        this.#hints.hint(loadBalancers.keyOf(balancer));
      }
    });
    loadBalancers.onChange((_key, next, previous) => {
      if (previous && next?.metadata.uid !== previous.metadata.uid)
        this.#finalized.delete(previous.metadata.uid);
    });
  }

  async *#endedKeys(signal: AbortSignal): AsyncGenerator<string> {
    const { views, logger, events } = this.#context;
    for await (const uid of this.#balancers.events(signal)) {
      const balancer = views.loadBalancers.byUid(uid);
      if (!balancer) continue;
      logger.warn({ balancer: balancer.metadata.name, uid }, "HAProxy ended by itself; it is started again");
      events.record(balancer, {
        severity: "warning",
        reason: "Crashed",
        message: "HAProxy ended by itself; it is started again with its servers",
      });
      yield views.loadBalancers.keyOf(balancer);
    }
  }
}
