import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { toStrataError } from "../../core/errors.ts";
import type { KvmProof } from "../../host/probes/kvm.ts";
import { readKvmFacts } from "../../host/probes/kvm-facts.ts";
import { run } from "../../host/run.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import { qemuProgram } from "./launch.ts";

/** Programs that the driver calls, and the Debian packages that have them. */
const programs: Readonly<Record<string, string>> = {
  [qemuProgram]: "qemu-system-x86",
  "qemu-img": "qemu-utils",
  genisoimage: "genisoimage",
  ip: "iproute2",
  nsenter: "util-linux",
  setpriv: "util-linux",
  fallocate: "util-linux",
};
const directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

export async function qemuFingerprint(
  proveKvm: (signal: AbortSignal) => Promise<KvmProof>,
  signal: AbortSignal,
): Promise<Fingerprint> {
  const facts = await readKvmFacts();
  const unavailable = (message: string): Fingerprint => ({
    available: false,
    message,
    version: "",
    types: [],
    abilities: [],
    facts,
  });
  if (process.arch !== "x64")
    return unavailable(`virtual machines need an x86-64 host; this is ${process.arch}`);
  const packages = await missingPackages();
  if (packages.length > 0) return unavailable(`install ${packages.join(", ")}`);
  const { stdout } = await run(qemuProgram, ["--version"], { signal });
  const proof = await proveKvm(signal).catch((error): KvmProof => {
    signal.throwIfAborted();
    return { works: false, ms: 0, reason: `not probed: ${toStrataError(error, "probing KVM").message}` };
  });
  return {
    available: true,
    message: "",
    version: /version (\S+)/.exec(stdout)?.[1] ?? "unknown",
    types: ["vm"],
    abilities: ["exec", "exec-tty", "console", "cards", "resize", "volumes", "snapshots", "memory", "drift"],
    facts: {
      ...facts,
      accelerator: proof.works ? "kvm" : "tcg",
      "kvm-proof": `${proof.works ? "yes" : "no"}, after ${proof.ms} ms: ${proof.reason}`,
    },
  };
}

async function missingPackages(): Promise<string[]> {
  const missing = new Set<string>();
  for (const [program, name] of Object.entries(programs)) {
    const found = await Promise.all(
      directories.map((directory) =>
        access(join(directory, program), constants.X_OK).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (!found.includes(true)) missing.add(name);
  }
  return [...missing];
}
