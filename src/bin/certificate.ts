/** The HTTPS interface's certificate: made once by openssl, for the names under which loopback is reached. */
import { X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../core/clock.ts";
import { run } from "../host/run.ts";

const validDays = 3650;
const renewBeforeMs = 30 * 24 * 3600 * 1000;
const names = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1";

export interface Certificate {
  cert: string;
  key: string;
}

/** Below the state directory, with a key that only root may read. A client takes `tls/cert.pem` as its --ca. */
export async function ensureCertificate(stateDir: string, clock: Clock): Promise<Certificate> {
  const directory = join(stateDir, "tls");
  const certFile = join(directory, "cert.pem");
  if (!existsSync(certFile) || expiresSoon(await readFile(certFile, "utf8"), clock)) {
    await makeCertificate(directory);
  }
  return { cert: await readFile(certFile, "utf8"), key: await readFile(join(directory, "key.pem"), "utf8") };
}

function expiresSoon(cert: string, clock: Clock): boolean {
  return new X509Certificate(cert).validToDate.getTime() - clock.now() < renewBeforeMs;
}

/** Both files appear by renames, the certificate last: it stands for the pair. */
async function makeCertificate(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const [newKey, newCert] = [join(directory, "new-key.pem"), join(directory, "new-cert.pem")];
  await Promise.all([newKey, newCert].map((file) => rm(file, { force: true })));
  // openssl creates keys with mode 0600; the directory is private in any case.
  await run("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"],
    ...["-days", String(validDays), "-subj", "/CN=strata", "-addext", names],
    ...["-keyout", newKey, "-out", newCert],
  ]);
  await rename(newKey, join(directory, "key.pem"));
  await rename(newCert, join(directory, "cert.pem"));
}
