import { execFile } from "node:child_process";
import { mkdtempDisposable } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { ensureCertificate } from "./certificate.ts";

const module = new URL("../core/system-trust.ts", import.meta.url).href;

/** A process of its own fetches and tells the outcome, and which authorities it trusts, before and after. */
const script = `
  const { getCACertificates } = await import("node:tls");
  const { X509Certificate } = await import("node:crypto");
  const look = async () => {
    const outcome = await fetch(process.env.URL_TO_FETCH).then(({ status }) => status, ({ cause }) => cause.code);
    const trusted = getCACertificates("default").map((pem) => new X509Certificate(pem).fingerprint256);
    return [outcome, [...new Set(trusted)].sort()];
  };
  const before = await look();
  const { trustAsTheSystemDoes } = await import(${JSON.stringify(module)});
  trustAsTheSystemDoes();
  trustAsTheSystemDoes();
  console.log(JSON.stringify([before, await look()]));`;

test("trusts what the machine trusts once it is asked to, as with Node's flag from the start", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-trust-"));
  const certificate = await ensureCertificate(directory.path, systemClock);
  const server = createServer(certificate, (_, response) => response.end("here"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  // The machine's certificates, as OpenSSL finds them.
  const env = { ...process.env, URL_TO_FETCH: url, SSL_CERT_FILE: join(directory.path, "tls", "cert.pem") };
  const looks = async (...flags: string[]) => {
    const args = [...flags, "--input-type=module", "--eval", script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env });
    return JSON.parse(stdout) as [outcome: unknown, authorities: string[]][];
  };
  const [before, after] = await looks();
  const [withFlag] = await looks("--use-system-ca");
  expect(before?.[0]).toBe("DEPTH_ZERO_SELF_SIGNED_CERT");
  expect(after).toEqual(withFlag);
  expect(after?.[0]).toBe(200);
  server.close();
  server.closeAllConnections();
});
