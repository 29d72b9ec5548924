import { expect, test } from "vitest";
import { type TarHeader, tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import { defaultLimits, sanitizeRootArchive } from "./root-archive.ts";
import { readTar } from "./tar-reader.ts";

const common = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, target: "", attributes: new Map() };

function entry(path: string, change: Partial<TarHeader> = {}): Buffer[] {
  const sizeBytes = change.type === undefined ? 4 : 0;
  const header = writeTarHeader({ ...common, path, type: "file", sizeBytes, ...change });
  return sizeBytes > 0 ? [header, Buffer.from("text"), Buffer.alloc(508)] : [header];
}

async function cleaned(entries: Buffer[][], forgetIdentity: boolean): Promise<Record<string, string>> {
  async function* source() {
    yield* entries.flat();
    yield tarEnd;
  }
  const options = { limits: defaultLimits, packedBytes: () => Number.POSITIVE_INFINITY, forgetIdentity };
  const found: Record<string, string> = {};
  const facts = { capabilities: new Map(), unpackedBytes: 0, entries: 0 };
  for await (const { path, content } of readTar(sanitizeRootArchive(source(), options, facts))) {
    const chunks: Uint8Array[] = [];
    for await (const chunk of content) chunks.push(chunk);
    found[path] = Buffer.concat(chunks).toString();
  }
  return found;
}

const machine = [
  entry("./etc", { type: "directory", mode: 0o755 }),
  entry("./etc/machine-id"),
  entry("./etc/hostname"),
  entry("./etc/ssh/ssh_host_ed25519_key"),
  entry("./etc/ssh/ssh_host_ed25519_key.pub"),
  entry("./etc/ssh/copy", { type: "hardlink", target: "./etc/ssh/ssh_host_ed25519_key" }),
  entry("./etc/ssh/sshd_config"),
  entry("./var/lib/cloud/instance", { type: "symlink", target: "instances/1" }),
  entry("./var/lib/cloud/instances/1/sem"),
  entry("./var/lib/cloud/seed/nocloud/meta-data"),
  entry("./srv/etc/machine-id"),
];

test("an image of a running machine has all of it but who it is", async () => {
  const found = await cleaned(machine, true);
  expect(found["etc/machine-id"]).toBe("");
  expect(found["srv/etc/machine-id"]).toBe("text");
  expect(
    Object.keys(found)
      .filter((path) => found[path] === "text")
      .sort(),
  ).toEqual(["etc/ssh/sshd_config", "srv/etc/machine-id", "var/lib/cloud/seed/nocloud/meta-data"]);
  expect(Object.keys(found).some((path) => /ssh_host|hostname|copy|instance/.test(path))).toBe(false);
});

test("an archive from elsewhere stays as it is", async () => {
  const found = await cleaned(machine, false);
  expect(found["etc/machine-id"]).toBe("text");
  expect(found["etc/ssh/ssh_host_ed25519_key"]).toBe("text");
});
