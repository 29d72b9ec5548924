/** Orders of certificates from an authority that speaks ACME (RFC 8555), proven by http-01. */
import { StrataError } from "../../core/errors.ts";

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

/** @throws Unsupported: the client library comes with the next change. */
export async function orderCertificate(
  order: CertificateOrder,
): Promise<{ chain: string; privateKey: string }> {
  throw new StrataError("Unsupported", `no certificate can be ordered for ${order.domains.join(", ")} yet`);
}
