import { createHash, X509Certificate } from "node:crypto";
import { fromTimestamp, type Instant, toTimestamp } from "../../core/clock.ts";
import type { Certificate } from "../../kinds/certificate.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface CertificateWorld {
  certificate: Certificate | undefined;
  /** Some balancer of the project has an http listener, at which the authority can ask. */
  answers: boolean;
}

export type CertificateAction =
  | { type: "write"; certificate: Certificate; status: Partial<Certificate["status"]> }
  | { type: "obtain"; certificate: Certificate };

const dayMs = 86_400_000;
/** Timers are no longer than this. */
const maxLookMs = dayMs / 2;

export function planCertificate(world: CertificateWorld, now: Instant): Plan<CertificateAction, never> {
  const { certificate } = world;
  const nothing = { status: undefined, actions: [] };
  if (!certificate || certificate.metadata.deletedAt !== undefined) return nothing;
  const { spec, status, metadata } = certificate;
  const current = status.observedGeneration === metadata.generation;
  if (spec.own) {
    if (current && status.state === "ready") return nothing;
    const facts = factsOf(spec.own.certificate, metadata.generation);
    return { status: undefined, actions: [{ type: "write", certificate, status: facts }] };
  }
  const renewAt = fromTimestamp(status.renewAt ?? "");
  if (current && status.chain !== undefined && renewAt !== undefined && now < renewAt) {
    return { ...nothing, recheckAfterMs: Math.min(renewAt - now, maxLookMs) };
  }
  if (world.answers) return { status: undefined, actions: [{ type: "obtain", certificate }] };
  const message =
    "waiting for a load balancer of the project with an http listener: the authority asks there whether the domains are yours";
  if (status.message === message) return { ...nothing, recheckAfterMs: maxLookMs };
  return { status: undefined, actions: [{ type: "write", certificate, status: { message } }] };
}

/** What a certificate says of itself. */
export function factsOf(chain: string, generation: number): Partial<Certificate["status"]> {
  const first = new X509Certificate(chain);
  return {
    state: "ready",
    message: "",
    observedGeneration: generation,
    fingerprint: createHash("sha256").update(first.raw).digest("hex"),
    domains: domainsOf(first),
    notAfter: toTimestamp(fromTimestamp(first.validTo) ?? 0),
  };
}

function domainsOf({ subjectAltName = "" }: X509Certificate): string[] {
  return subjectAltName
    .split(", ")
    .filter((name) => name.startsWith("DNS:"))
    .map((name) => name.slice(4));
}

/** Before it ends as spec says; of one that lives too short for that, after two thirds of its life. */
export function renewalTime(chain: string, renewBeforeDays: number): Instant {
  const { validFrom, validTo } = new X509Certificate(chain);
  const [from, to] = [fromTimestamp(validFrom) ?? 0, fromTimestamp(validTo) ?? 0];
  return Math.max(to - renewBeforeDays * dayMs, from + Math.round(((to - from) * 2) / 3));
}
