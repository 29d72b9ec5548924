/**
 * Everything `doctor` looks at. Probes describe: one that fails becomes a finding and keeps no other from its turn.
 * What can only be known by doing it is done, in namespaces and files that are thrown away.
 */
import { describeError } from "../../core/errors.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type { Cgroups } from "../cgroups.ts";
import type { HostConfig } from "../host-config.ts";
import { readPackages } from "../packages.ts";
import { cgroupFindings, readCgroups } from "./cgroup-findings.ts";
import { connectivityFindings, readConnectivity } from "./connectivity.ts";
import { cpuFindings, readCpu } from "./cpu.ts";
import { builderFindings, dockerFindings } from "./docker.ts";
import { type Finding, type FindingArea, findingAreas } from "./finding.ts";
import { HostFiles } from "./host-files.ts";
import { kernelFindings, readKernel, securityFindings } from "./kernel.ts";
import type { KvmProof } from "./kvm.ts";
import { kvmFindings } from "./kvm-findings.ts";
import { memoryFindings, parseMemory } from "./memory.ts";
import { networkFindings, readNetwork } from "./network.ts";
import { packageFindings, readPackageFacts } from "./packages.ts";
import { readStorage, storageFindings } from "./storage.ts";
import { readTime, timeFindings } from "./time-sync.ts";

export interface ProbeOptions {
  config: HostConfig;
  openCgroups: () => Promise<Cgroups>;
  /** Boots a test guest; undefined when that cannot be tried (no root, no kernel at hand). */
  probeKvm: (() => Promise<KvmProof | undefined>) | undefined;
  /** Runs a container; undefined when there is no Engine to try it with. */
  probeDocker: (() => Promise<Fingerprint>) | undefined;
  signal: AbortSignal;
  /** Where the host's files are. Default `/`. */
  root?: string;
}

/** In the order of `findingAreas`. */
export async function runProbes(options: ProbeOptions): Promise<Finding[]> {
  const { config, signal } = options;
  const files = new HostFiles(options.root);
  const probes: Record<FindingArea, () => Promise<Finding[]>> = {
    cpu: async () => cpuFindings(await readCpu(files)),
    kvm: async () => {
      const device = await files.has("dev/kvm");
      const proof = device ? await options.probeKvm?.() : undefined;
      return kvmFindings(await readCpu(files), device, proof);
    },
    memory: async () => memoryFindings(parseMemory(await files.text("proc/meminfo"))),
    kernel: async () => kernelFindings(await readKernel(files)),
    cgroups: async () => cgroupFindings(await readCgroups(options.openCgroups, config.namespace)),
    storage: async () => storageFindings(await readStorage(files, config, signal)),
    network: async () => [
      ...networkFindings(await readNetwork(files, config, signal)),
      ...(await connectivity(options, files)),
    ],
    docker: async () => {
      const fingerprint = await options.probeDocker?.();
      const [buildah, slirp4netns] = await Promise.all([
        files.has("usr/bin/buildah"),
        files.has("usr/bin/slirp4netns"),
      ]);
      return [...dockerFindings(fingerprint), ...builderFindings(fingerprint, { buildah, slirp4netns })];
    },
    packages: async () => packageFindings(await readPackageFacts(await readPackages(), signal)),
    security: async () => securityFindings(await readKernel(files)),
    time: async () => timeFindings(await readTime(files)),
  };
  const findings: Finding[] = [];
  for (const area of findingAreas) {
    signal.throwIfAborted();
    findings.push(...(await probes[area]().catch((cause) => [failedProbe(area, cause)])));
  }
  return findings;
}

/** Nothing without root: the parts were not tried either, and that finding says so. */
async function connectivity({ openCgroups, signal }: ProbeOptions, files: HostFiles): Promise<Finding[]> {
  if (process.getuid?.() !== 0) return [];
  try {
    return connectivityFindings(await readConnectivity(files, openCgroups, signal));
  } catch (cause) {
    return [failedProbe("network", cause)];
  }
}

function failedProbe(area: FindingArea, cause: unknown): Finding {
  return {
    area,
    title: "could not be looked at",
    level: "warning",
    facts: { cause: describeError(cause) },
    meaning: "What guests can expect here is not known.",
    advice: "Run this as root; if it still fails, the cause above says where.",
  };
}
