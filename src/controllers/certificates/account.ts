import { createHash, generateKeyPairSync } from "node:crypto";
import { StrataError } from "../../core/errors.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { Resource } from "../../kinds/kind.ts";
import { projectKind } from "../../kinds/project.ts";
import { fromStored } from "../../kinds/stored.ts";
import type { Store } from "../../store/store.ts";

/** Whose account it is, with which authority. */
export interface AccountOwner {
  project: string;
  directory: string;
  email: string;
}

/**
 * The account's private key, PEM, made on first use. Each project has accounts of its own: an authority remembers what an
 * account has proven, so with one account for all a project would get certificates for the domains of another.
 * @throws Unavailable when it cannot be kept, NotFound when the project is gone.
 */
export async function accountKey(
  store: Pick<Store, "get" | "commit">,
  { project, directory, email }: AccountOwner,
): Promise<string> {
  const owner = await store.get(resourceKey(projectKind, { name: project }));
  if (!owner) throw new StrataError("NotFound", `project "${project}" is gone`);
  const { uid } = fromStored<Resource>(owner).metadata;
  const digest = createHash("sha256").update(`${uid} ${directory} ${email}`).digest("hex").slice(0, 32);
  const key = `/acme-accounts/${digest}`;
  const known = await store.get(key);
  if (known) return (known.value as { privateKey: string }).privateKey;
  const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const privateKey = pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  await store.commit([{ put: key, value: { privateKey }, ifRevision: 0 }]).catch(() => {});
  const entry = await store.get(key);
  if (!entry) throw new StrataError("Unavailable", `cannot keep the key of the account with ${directory}`);
  return (entry.value as { privateKey: string }).privateKey;
}
