/**
 * Orders of certificates from an authority that speaks ACME (RFC 8555), proven by http-01. The client library has one set
 * of connection options for the whole process; whom a connection trusts is therefore decided when it is made, by the order
 * that makes it.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { X509Certificate } from "node:crypto";
import { Agent } from "node:https";
import { connect } from "node:tls";
import * as acme from "acme-client";
import { StrataError } from "../../core/errors.ts";
import { trustAsTheSystemDoes } from "../../core/system-trust.ts";
import { challengeForms } from "../../kinds/certificate.ts";

export interface CertificateOrder {
  directory: string;
  domains: readonly string[];
  email: string | undefined;
  /** PEM of those that the authority's own HTTPS is checked with; undefined: the system's. */
  authorities: string | undefined;
  /** Of the account with the authority, PEM. */
  accountKey: string;
  /** Resolves once the answer can be had. */
  answer(token: string, keyAuthorization: string): Promise<void>;
  withdraw(token: string): Promise<void>;
}

const underWay = new AsyncLocalStorage<Pick<CertificateOrder, "directory" | "authorities">>();
/** Between looks at an order that is under way. */
const pollMs = { min: 250, max: 15_000, attempts: 30 };

const maxAnswerBytes = 1024 * 1024;
/** Of the authority's words. */
const maxWords = 500;

class TrustingAgent extends Agent {
  override createConnection(...[options]: Parameters<Agent["createConnection"]>) {
    const ca = underWay.getStore()?.authorities;
    return connect({ ...(options as object), ...(ca === undefined ? {} : { ca }) });
  }
}

acme.axios.defaults.httpsAgent = new TrustingAgent({ keepAlive: false });
acme.axios.defaults.timeout = 30_000;
acme.axios.defaults.maxContentLength = maxAnswerBytes;
// Users name directories, and what is answered is told to them: nobody is asked but the authority itself, or they could
// have what only this host reaches asked for them.
acme.axios.defaults.maxRedirects = 0;
acme.axios.interceptors.request.use((config) => {
  const { origin } = new URL(underWay.getStore()?.directory ?? "");
  const url = URL.parse(config.url ?? "");
  if (url?.protocol === "https:" && url.origin === origin) return config;
  throw new StrataError("Unavailable", `it leads to ${url?.origin ?? "no address"} instead of itself`);
});
// Whoever asks here comes again with a back-off of its own.
Object.assign(acme.axios.defaults, { acmeSettings: { retryMaxAttempts: 2, retryDefaultDelay: 1 } });

/** @throws Unavailable with the authority's words. */
export async function orderCertificate(
  order: CertificateOrder,
): Promise<{ chain: string; privateKey: string }> {
  return await underWay.run(order, async () => {
    try {
      return await placeOrder(order);
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      throw new StrataError(
        "Unavailable",
        `the authority ${new URL(order.directory).host} gave no certificate for ${order.domains.join(", ")}: ${words.slice(0, maxWords)}`,
        { cause: error },
      );
    }
  });
}

async function placeOrder(order: CertificateOrder): Promise<{ chain: string; privateKey: string }> {
  trustAsTheSystemDoes();
  const client = new acme.Client({
    directoryUrl: order.directory,
    accountKey: order.accountKey,
    backoffMin: pollMs.min,
    backoffMax: pollMs.max,
    backoffAttempts: pollMs.attempts,
  });
  await enter(client, order.email);
  const privateKey = (await acme.crypto.createPrivateEcdsaKey("P-256")).toString();
  const [, csr] = await acme.crypto.createCsr({ altNames: [...order.domains] }, privateKey);
  const chain = await client.auto({
    csr,
    challengePriority: ["http-01"],
    // It would ask the domains from here, where they may lead elsewhere.
    skipChallengeVerification: true,
    challengeCreateFn: async (_authorization, { token }, keyAuthorization) => {
      if (!challengeForms.token.test(token) || !challengeForms.answer.test(keyAuthorization)) {
        throw new Error("it asks with a token that is none (RFC 8555, 8.1)");
      }
      await order.answer(token, keyAuthorization);
    },
    challengeRemoveFn: (_authorization, challenge) => order.withdraw(challenge.token),
  });
  return { chain: onlyCertificates(chain), privateKey };
}

const maxCertificates = 10;

/** As this process writes them, and nothing that stood between them. @throws when there is none. */
export function onlyCertificates(chain: string): string {
  const found = chain.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  if (found.length === 0 || found.length > maxCertificates) {
    throw new Error(`it sent ${found.length} certificates instead of 1 to ${maxCertificates}`);
  }
  return found.map((pem) => new X509Certificate(pem).toString()).join("");
}

/** Makes the account, or finds it. */
async function enter(client: acme.Client, email: string | undefined): Promise<void> {
  const contact = email === undefined ? {} : { contact: [`mailto:${email}`] };
  try {
    await client.createAccount({ termsOfServiceAgreed: true, ...contact });
  } catch (error) {
    // The library updates an account that it finds. With nothing to update, authorities may refuse; it is found all the same.
    if (!isKnown(client)) throw error;
  }
}

function isKnown(client: acme.Client): boolean {
  try {
    return client.getAccountUrl() !== "";
  } catch {
    return false;
  }
}
