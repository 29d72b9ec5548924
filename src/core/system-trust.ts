import { getCACertificates, setDefaultCACertificates } from "node:tls";

let trusts = false;

/**
 * From now on this process's TLS clients trust what the rest of the machine trusts, beside what comes with Node.js. The same
 * as `--use-system-ca`, but only a process that asks somebody elsewhere has the certificates in memory (5 MB). Idempotent.
 */
export function trustAsTheSystemDoes(): void {
  if (trusts) return;
  trusts = true;
  setDefaultCACertificates([...getCACertificates("default"), ...getCACertificates("system")]);
}
