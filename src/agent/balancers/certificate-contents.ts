/**
 * What certificates serve with, as far as it is known here: fetched from the API when a certificate changes, kept in
 * memory only. Until one has content, a placeholder of our own stands for it, so that its balancer can start and answer
 * the authority.
 */
import { X509Certificate } from "node:crypto";
import type { Client } from "../../client/client.ts";
import type { Certificate } from "../../kinds/certificate.ts";
import type { Ref } from "../../kinds/keys.ts";

export class CertificateContents {
  readonly #client: Client;
  readonly #makePlaceholder: () => Promise<string>;
  /** By uid; `of`: what of the certificate it was fetched for. */
  readonly #known = new Map<string, { of: string; pem: string }>();
  #placeholder: Promise<string> | undefined;

  constructor(client: Client, makePlaceholder: () => Promise<string>) {
    this.#client = client;
    this.#makePlaceholder = makePlaceholder;
  }

  /** PEM of the chain and the key. @throws what the API throws. */
  async get(certificate: Certificate | undefined, signal: AbortSignal): Promise<string> {
    if (!certificate) return await this.#standIn();
    const { uid, generation } = certificate.metadata;
    const of = `${generation} ${certificate.status.fingerprint ?? ""}`;
    const known = this.#known.get(uid);
    if (known?.of === of) return known.pem;
    const material = await this.#client.certificateMaterial(certificate.metadata as Ref, { signal });
    if (!material) return await this.#standIn();
    const pem = `${material.chain.trim()}\n${material.privateKey.trim()}\n`;
    this.#known.set(uid, { of, pem });
    return pem;
  }

  forget(uid: string): void {
    this.#known.delete(uid);
  }

  #standIn(): Promise<string> {
    this.#placeholder ??= this.#makePlaceholder();
    return this.#placeholder;
  }
}

/** As HAProxy tells the fingerprint of a certificate: SHA-1, hexadecimal in capitals. */
export function fingerprintOf(pem: string): string {
  return new X509Certificate(pem).fingerprint.replaceAll(":", "");
}
