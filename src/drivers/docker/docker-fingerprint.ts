/** What the Engine of this host can do, proven by running a container that has nothing but the gate. */
import { mkdir, rm } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { type TarHeader, tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import { holdNamespaces } from "./card-ports.ts";
import { containerOptions } from "./container-spec.ts";
import { dockerConfigSchema } from "./docker-config.ts";
import { type Engine, type EngineInfo, toFilters } from "./engine.ts";
import { lastMessage } from "./engine-messages.ts";
import { busyboxPath, openGate } from "./gate.ts";
import { type DockerGuest, GuestRecord } from "./guest-record.ts";
import { labels } from "./labels.ts";

export interface FingerprintOptions {
  engine: Engine;
  namespace: string;
  stateDir: string;
  busybox: string;
  clock: Clock;
  /** New for each call. */
  probeId: Uid;
  signal: AbortSignal;
}

const probeTimeoutMs = 30_000;
/** Older ones were left by a daemon that was killed. */
const abandonedMs = 10 * 60_000;
const probeMemoryMib = 32;

export async function fingerprintDocker(options: FingerprintOptions): Promise<Fingerprint> {
  const { engine, signal } = options;
  signal.throwIfAborted();
  const nothing = { version: "", types: [], abilities: [], facts: {} };
  if (process.getuid?.() !== 0) {
    return { available: false, message: "containers need a daemon that runs as root", ...nothing };
  }
  try {
    const info = await engine.info(signal);
    await probe(options, info);
    return {
      available: true,
      message: "",
      version: info.ServerVersion.slice(0, 200),
      types: ["container"],
      abilities: ["exec", "exec-tty", "console", "resize", "cards", "drift"],
      facts: factsOf(info),
    };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    const { message } = error instanceof StrataError ? error : new Error(describeError(error));
    return { available: false, message: message.slice(0, 1024), ...nothing };
  }
}

export function factsOf(info: EngineInfo): Record<string, string> {
  const security = (info.SecurityOptions ?? []).map((option) => /^name=([^,]+)/.exec(option)?.[1] ?? option);
  const has = (name: string) => (security.includes(name) ? "yes" : "no");
  return {
    "storage driver": info.Driver,
    cgroups: `v${info.CgroupVersion ?? "1"} (${info.CgroupDriver})`,
    "guests survive a restart of dockerd": info.LiveRestoreEnabled ? "yes" : "no (live-restore is off)",
    "root in guests is root on the host": security.includes("userns") ? "no" : "yes (userns-remap is off)",
    seccomp: has("seccomp"),
    apparmor: has("apparmor"),
  };
}

/** @throws Unavailable with the Engine's reason. */
async function probe(options: FingerprintOptions, info: EngineInfo): Promise<void> {
  const { engine, namespace, stateDir, busybox, probeId, signal } = options;
  await removeAbandoned(options);
  await mkdir(stateDir, { recursive: true, mode: 0o711 });
  const record = new GuestRecord(stateDir, `.probe-${probeId}` as Uid);
  const image = { repo: `strata.local/${namespace}`, tag: `probe-${probeId}` };
  const name = `${namespace}-probe-${probeId}`;
  const guest = probeGuest(probeId);
  try {
    await record.writeMounted(guest);
    await importNothing(options, image);
    const place = { namespace, handleVersion: 1, record, busybox, hostCpus: info.NCPU };
    const wanted = {
      ...containerOptions(guest, place),
      Image: `${image.repo}:${image.tag}`,
      Labels: { [labels.probe]: namespace },
      name,
    };
    const { id } = await engine.ask(
      "make a container for testing",
      (docker, abortSignal) => docker.createContainer({ ...wanted, abortSignal }),
      { signal },
    );
    await engine.ask(
      "start a container for testing",
      (docker, abortSignal) => docker.getContainer(id).start({ abortSignal }),
      { signal, timeoutMs: probeTimeoutMs },
    );
    await passGate(options, record, id);
  } finally {
    const noSignal = new AbortController().signal;
    await engine.removeContainer(name, noSignal).catch(() => {});
    await removeImage(engine, `${image.repo}:${image.tag}`).catch(() => {});
    await rm(record.dir, { recursive: true, force: true });
  }
}

async function passGate({ engine, clock, signal }: FingerprintOptions, record: GuestRecord, id: string) {
  const pid = (await engine.inspect(id, signal))?.State.Pid ?? 0;
  await using _namespaces = await holdNamespaces(pid);
  await openGate(record.gate, { pid, clock, signal });
  const ended = await engine.ask(
    "run a container for testing",
    (docker, abortSignal) => docker.getContainer(id).wait({ condition: "not-running", abortSignal }),
    { signal, timeoutMs: probeTimeoutMs },
  );
  if (ended.StatusCode === 0) return;
  throw new StrataError(
    "Unavailable",
    `a container for testing ended with status ${ended.StatusCode}; the package busybox-static must be installed`,
  );
}

/** An image with one empty directory: all that the container uses is mounted into it. */
async function importNothing(
  { engine, namespace, signal }: FingerprintOptions,
  image: { repo: string; tag: string },
): Promise<void> {
  const directory: TarHeader = {
    path: "etc",
    type: "directory",
    mode: 0o755,
    uid: 0,
    gid: 0,
    sizeBytes: 0,
    mtimeSeconds: 0,
    target: "",
    attributes: new Map(),
  };
  const archive = Buffer.concat([writeTarHeader(directory), tarEnd]);
  const changes = [`LABEL ${labels.probe}=${namespace}`];
  const answer = await engine.ask(
    "import an image for testing",
    async (docker, abortSignal) =>
      await lastMessage(
        await docker.importImage(archive as never, { ...image, changes, abortSignal } as object),
      ),
    { signal, timeoutMs: probeTimeoutMs },
  );
  if (answer.error === undefined) return;
  throw new StrataError("Unavailable", `the Docker Engine cannot import an image: ${answer.error}`);
}

async function removeAbandoned({ engine, namespace, clock, signal }: FingerprintOptions): Promise<void> {
  const label = [`${labels.probe}=${namespace}`];
  const isOld = ({ Created }: { Created: number }) => clock.now() - Created * 1000 > abandonedMs;
  for (const container of (await engine.containers({ label })).filter(isOld)) {
    await engine.removeContainer(container.Id, signal);
  }
  const images = await engine.ask(
    "list images",
    (docker, abortSignal) => docker.listImages({ filters: toFilters({ label }), abortSignal }),
    { signal },
  );
  for (const image of images.filter(isOld)) {
    for (const tag of image.RepoTags ?? []) {
      if (tag.startsWith(`strata.local/${namespace}:probe-`)) await removeImage(engine, tag);
    }
  }
}

async function removeImage(engine: Engine, name: string): Promise<void> {
  await engine.call(
    `remove image ${name}`,
    (docker, abortSignal) => docker.getImage(name).remove({ abortSignal }),
    { accept: [404, 409] },
  );
}

function probeGuest(uid: Uid): DockerGuest {
  return {
    uid,
    title: "probe",
    hostname: "probe",
    type: "container",
    cpus: 1,
    memoryMib: probeMemoryMib,
    maxProcesses: 16,
    root: { type: "image", digest: `sha256:${"0".repeat(64)}`, path: "/", idBase: 0, idCount: 0 },
    nics: [],
    seed: { metaData: "", userData: "", networkConfig: "" },
    config: dockerConfigSchema.parse({ command: [busyboxPath, "true"] }),
  };
}
