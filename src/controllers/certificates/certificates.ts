/**
 * Keeps certificates valid: one's own are described in their status, those of an ACME authority are ordered and renewed in
 * time. What the authority asks is answered by the balancers of the project, which read it from the status. A certificate
 * that has content goes on serving with it whatever becomes of its renewal.
 */
import { toTimestamp } from "../../core/clock.ts";
import { StrataError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Certificate, certificateKind } from "../../kinds/certificate.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { CacheIndex } from "../../reconcile/cache.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { rewriteStatus } from "../rewrite-status.ts";
import { accountKey } from "./account.ts";
import {
  type CertificateAction,
  type CertificateWorld,
  factsOf,
  planCertificate,
  renewalTime,
} from "./plan.ts";

/** How long balancers may take to answer for a new challenge. */
const answerWaitMs = 15_000;
const lookEveryMs = 20;
/** An authority that takes longer keeps others waiting: it is asked again later. */
const orderTimeoutMs = 15 * 60_000;

/** To be created before its caches are filled, because it indexes them. */
export function createCertificateReconciler(
  context: ControllerContext,
): Reconciler<CertificateWorld, CertificateAction, never> {
  const { store, clock } = context;
  const { certificates, loadBalancers } = context.caches;
  const ofProject = new CacheIndex(certificates, ({ metadata }) => metadata.project);
  const balancersOf = new CacheIndex(loadBalancers, ({ metadata }) => metadata.project);
  const related = new Hints();
  loadBalancers.onChange((_key, next, previous) => {
    if (next && previous && next.metadata.generation === previous.metadata.generation) return;
    const { project = "" } = (next ?? previous)?.metadata ?? {};
    for (const key of ofProject.keysOf(project)) related.hint(key);
  });
  const answering = (project: string): LoadBalancer[] =>
    [...balancersOf.keysOf(project)].flatMap((key) => {
      const balancer = loadBalancers.get(key);
      const answers = balancer?.spec.listeners.some(({ protocol }) => protocol === "http");
      return balancer && answers && balancer.metadata.deletedAt === undefined ? [balancer] : [];
    });
  const change = (certificate: Certificate, next: (status: Certificate["status"]) => Certificate["status"]) =>
    rewriteStatus(store, certificateKind, certificates, certificate, next);

  async function answer(certificate: Certificate, token: string, text: string): Promise<void> {
    await change(certificate, (status) => ({
      ...status,
      challenges: { ...status.challenges, [token]: text },
    }));
    const end = clock.monotonicMs() + answerWaitMs;
    const { project = "" } = certificate.metadata;
    // Some balancer may be failing for reasons of its own: the authority will say so.
    while (clock.monotonicMs() < end) {
      const balancers = answering(project).filter(({ status }) => status.state === "active");
      if (balancers.length > 0 && balancers.every(({ status }) => status.answers?.includes(token))) return;
      await clock.sleep(lookEveryMs);
    }
  }

  async function obtain(certificate: Certificate): Promise<void> {
    const { acme } = certificate.spec;
    if (!acme) return;
    // Most daemons never order one, and the library is large.
    const { orderCertificate } = await import("./authority.ts");
    const { chain, privateKey } = await orderCertificate({
      ...acme,
      email: acme.email,
      authorities: acme.authorities,
      accountKey: await accountKey(store, {
        project: certificate.metadata.project ?? "",
        directory: acme.directory,
        email: acme.email ?? "",
      }),
      answer: (token, text) => answer(certificate, token, text),
      withdraw: async (token) => {
        await change(certificate, (status) => {
          const { [token]: _gone, ...challenges } = status.challenges;
          return { ...status, challenges };
        });
      },
    });
    const { generation } = certificate.metadata;
    const renewAt = toTimestamp(renewalTime(chain, acme.renewBeforeDays));
    const facts = factsOf(chain, generation);
    await change(certificate, (status) => ({
      ...status,
      ...facts,
      chain,
      privateKey,
      renewAt,
      challenges: {},
    }));
  }

  return {
    name: "certificates",
    watches: [
      { name: "certificates", urgent: true, keys: (signal) => certificates.watchKeys(signal) },
      { name: "balancers", urgent: true, keys: (signal) => related.keys(signal) },
    ],
    async observe(key) {
      await loadBalancers.whenSynced();
      const certificate = certificates.get(key);
      const answers = answering(certificate?.metadata.project ?? "").length > 0;
      return { certificate, answers };
    },
    plan: planCertificate,
    async execute(action, signal) {
      if (action.type === "write") {
        await change(action.certificate, (status) => ({ ...status, ...action.status }));
        return;
      }
      const stopped = Promise.withResolvers<never>();
      const stop = () => stopped.reject(signal.reason);
      signal.addEventListener("abort", stop, { once: true });
      const cancel = clock.after(orderTimeoutMs, () => {
        const message = `the authority gave no certificate within ${orderTimeoutMs / 60_000} minutes`;
        stopped.reject(new StrataError("Timeout", message));
      });
      try {
        await Promise.race([obtain(action.certificate), stopped.promise]);
      } finally {
        cancel();
        signal.removeEventListener("abort", stop);
      }
    },
    async failed(key, { error, retryAfterMs }) {
      const certificate = certificates.get(key);
      if (!certificate) return;
      const { message } = toStrataError(error, `obtain certificate "${certificate.metadata.name}"`);
      const seconds = Math.max(1, Math.round(retryAfterMs / 1000));
      const text = `${message}; trying again in ${seconds} s`.slice(0, 1000);
      await change(certificate, (status) => ({
        ...status,
        state: status.chain === undefined ? "failed" : status.state,
        message: text,
        challenges: {},
      }));
    },
  };
}
