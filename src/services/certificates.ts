import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { fromTimestamp, toTimestamp } from "../core/clock.ts";
import type { FieldError } from "../core/errors.ts";
import { type Certificate, certificateKind, hiddenKey } from "../kinds/certificate.ts";
import type { Ref } from "../kinds/keys.ts";
import type { ResourceOf } from "../kinds/kind.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { takeCounts } from "./count-quota.ts";
import type { KindHooks, World } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { type Principal, requireOperator } from "./principal.ts";
import { closeReferences, refuseWhileUsed, usersInMessage, wasNamed } from "./references.ts";

type Hooks =
  ResourceOf<typeof certificateKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/** One's own are checked when they are written, and ready at once. Private keys are never shown. */
export const certificateHooks: Hooks = {
  async admit(certificate, world, action) {
    const errors = checkOwn(certificate, world.clock.now());
    if (errors.length > 0) throw invalid(action, errors);
    return {
      writes: await takeCounts(world, certificate.metadata.project ?? "", { certificates: 1 }, action),
    };
  },
  async admitUpdate(next, _previous, world, action) {
    const errors = checkOwn(next, world.clock.now());
    if (errors.length > 0) throw invalid(action, errors);
    return [];
  },
  closing: closeReferences,
  async checkDelete(certificate, world, mode) {
    if (mode.withProject || !(await wasNamed(certificate, world))) return;
    const { name, project } = certificate.metadata;
    const users: string[] = [];
    for await (const { metadata, spec } of world.scan(loadBalancerKind, project)) {
      if (!spec.listeners.some((listener) => listener.certificates.includes(name))) continue;
      users.push(`load balancer "${metadata.name}"`);
      if (users.length > usersInMessage) break;
    }
    refuseWhileUsed(`certificate "${name}"`, users, "take it off its listeners first");
  },
  present: hideKeys,
};

/** The chain and its private key, for the host that serves with them; undefined while there is none. */
export async function certificateMaterial(
  principal: Principal,
  ref: Ref,
  world: World,
): Promise<{ chain: string; privateKey: string } | undefined> {
  requireOperator(principal, "read private keys");
  const certificate = await world.find(certificateKind, ref);
  const { chain, privateKey } = materialOf(certificate);
  if (chain === undefined || privateKey === undefined) return undefined;
  return { chain, privateKey };
}

function materialOf(certificate: Certificate | undefined): {
  chain?: string | undefined;
  privateKey?: string | undefined;
} {
  const own = certificate?.spec.own;
  if (own) return { chain: own.certificate, privateKey: own.privateKey };
  return { chain: certificate?.status.chain, privateKey: certificate?.status.privateKey };
}

/** A digest stays, so that whoever has the key sees whether it is this one. */
function hideKeys(certificate: Certificate): Certificate {
  const { spec, status } = certificate;
  return {
    ...certificate,
    spec: spec.own ? { ...spec, own: { ...spec.own, privateKey: hidden(spec.own.privateKey) } } : spec,
    status: status.privateKey === undefined ? status : { ...status, privateKey: hidden(status.privateKey) },
  };
}

function hidden(key: string): string {
  return hiddenKey(createHash("sha256").update(key).digest("hex"));
}

const pemCertificates = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;

/** The first thing that is wrong with a certificate of one's own. */
function checkOwn({ spec }: Certificate, now: number): FieldError[] {
  if (!spec.own) return [];
  const path = "spec.own.certificate";
  let chain: X509Certificate[];
  try {
    chain = (spec.own.certificate.match(pemCertificates) ?? []).map((pem) => new X509Certificate(pem));
  } catch {
    return [{ path, message: "cannot be read as X.509", allowed: "certificates in PEM form" }];
  }
  const [first, ...above] = chain;
  if (!first) return [{ path, message: "has no certificate", allowed: "certificates in PEM form" }];
  const validTo = fromTimestamp(first.validTo) ?? 0;
  if (validTo <= now) {
    return [{ path, message: `expired at ${toTimestamp(validTo)}`, allowed: "one that is valid now" }];
  }
  let below = first;
  for (const [index, one] of above.entries()) {
    // Names may agree where keys do not.
    if (!below.checkIssued(one) || !below.verify(one.publicKey)) {
      const message = `has certificate ${index + 2} (${oneLine(one.subject)}) where the issuer of the one before it (${oneLine(below.issuer)}) belongs`;
      return [{ path, message, allowed: "the server's certificate first, then each issuer" }];
    }
    below = one;
  }
  return checkKey(first, spec.own.privateKey);
}

function checkKey(certificate: X509Certificate, privateKey: string): FieldError[] {
  const path = "spec.own.privateKey";
  try {
    if (certificate.checkPrivateKey(createPrivateKey(privateKey))) return [];
  } catch {
    const allowed = "a private key in PEM form without a passphrase";
    return [{ path, message: "cannot be read", allowed }];
  }
  return [{ path, message: "does not belong to the certificate", allowed: "the key that it was made with" }];
}

function oneLine(name: string): string {
  return name.replaceAll("\n", ", ");
}
