/**
 * A stock kernel to prove KVM with. Most hosts have one at hand: an image's, or the one they booted from; where there
 * is none (a host that was started by another hypervisor's direct boot), the distribution's cloud kernel is fetched once.
 */
import { access, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";

export interface ProbeKernelPlaces {
  /** Of the image store: each image's kernel is `DIGEST/vmlinuz`. */
  imageDir: string;
  /** For a kernel that was fetched; may be absent. */
  cacheDir: string;
  /** Default `/boot`. */
  bootDir?: string;
}

const cachedName = "vmlinuz";
/** Meta packages of Debian and of Ubuntu that depend on the current small kernel. */
const metaPackages = ["linux-image-cloud-amd64", "linux-image-virtual"];

/** One that is there already, or undefined: the fetched one, the host's own, an image's. */
export async function findProbeKernel(places: ProbeKernelPlaces): Promise<string | undefined> {
  const images = await readdir(places.imageDir).catch((): string[] => []);
  const candidates = [
    join(places.cacheDir, cachedName),
    join(places.bootDir ?? "/boot", `vmlinuz-${release()}`),
    ...images.sort().map((entry) => join(places.imageDir, entry, "vmlinuz")),
  ];
  for (const candidate of candidates) {
    const readable = await access(candidate).then(
      () => true,
      () => false,
    );
    if (readable) return candidate;
  }
  return undefined;
}

/**
 * Fetches the distribution's cloud kernel into the cache and returns its path; nothing is installed. What an
 * interrupted call left is of no harm.
 * @throws Unavailable when the distribution has none or its mirror does not answer.
 */
export async function fetchProbeKernel(cacheDir: string, signal: AbortSignal): Promise<string> {
  await mkdir(cacheDir, { recursive: true });
  const directory = await mkdtemp(join(cacheDir, "fetch-"));
  try {
    const name = await kernelPackage(signal);
    // apt's unprivileged user cannot write into our directory.
    const options = ["-q", "-o", "APT::Sandbox::User=root"];
    await run("apt-get", [...options, "download", name], { cwd: directory, signal, timeoutMs: 300_000 });
    const file = (await readdir(directory)).find((entry) => entry.endsWith(".deb"));
    if (file === undefined) throw new StrataError("Internal", `apt-get download ${name} left no package`);
    await run("dpkg-deb", ["-x", file, "unpacked"], { cwd: directory, signal });
    const boot = join(directory, "unpacked", "boot");
    const kernel = (await readdir(boot)).find((entry) => entry.startsWith("vmlinuz-"));
    if (kernel === undefined) throw new StrataError("Internal", `the package ${name} holds no kernel`);
    await rename(join(boot, kernel), join(cacheDir, cachedName));
    return join(cacheDir, cachedName);
  } catch (cause) {
    signal.throwIfAborted();
    throw new StrataError(
      "Unavailable",
      `cannot fetch a kernel to prove KVM with; check that apt-get reaches its mirror, or build an image first`,
      { cause },
    );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function kernelPackage(signal: AbortSignal): Promise<string> {
  for (const meta of metaPackages) {
    const { stdout } = await run("apt-cache", ["depends", "--important", meta], {
      expected: [0, 100],
      signal,
    });
    const name = /Depends: (linux-image-[a-z0-9.+-]+)/.exec(stdout)?.[1];
    if (name !== undefined) return name;
  }
  throw new StrataError("Unavailable", `this distribution has none of ${metaPackages.join(", ")}`);
}
