/**
 * What makes a daemon this one and no other: where it keeps its things and how it names what it makes. Each setting comes
 * from an option, else from its STRATA_ variable, else from the one directory STRATA_DIR (for a second daemon, a test), else
 * from the defaults of a machine's one daemon.
 */
import { createHash } from "node:crypto";
import { isIPv4 } from "node:net";
import { join, resolve } from "node:path";
import { type FieldError, StrataError } from "../core/errors.ts";
import { parseRange } from "../core/ip-range.ts";
import { parseNetwork } from "../host/egress/allowed-addresses.ts";
import type { HostConfig } from "../host/host-config.ts";

export interface Settings extends HostConfig {
  socketPath: string;
  /** Where floating addresses come from: an IPv4 range that leads to this machine. */
  addressPool: string;
  /** Of the Docker Engine that application containers run in. */
  dockerSocket: string;
  /** The Engine's network that the steps of a Dockerfile have; undefined is the Engine's default. */
  buildNetwork: string | undefined;
  /** Addresses that images of the catalogue are fetched from instead, by what the official ones begin with. */
  imageMirrors: Readonly<Record<string, string>>;
  /** Networks with internal addresses that images may be fetched from: ranges, or single addresses. */
  imageNetworks: readonly string[];
  /** Directories below which projects may keep backup repositories. */
  backupDirs: readonly string[];
  /** Networks with internal addresses that S3 services may be in: ranges, or single addresses. */
  s3Networks: readonly string[];
  /** File with the certificates of authorities that S3 services are trusted by; undefined: the system's. */
  s3Authorities: string | undefined;
  /** Of the HTTPS interface on loopback; 0 takes any free one. */
  httpsPort: number;
  logLevel: string;
  /** Guests without substance and a store in memory: no root, no packages. */
  fake: boolean;
  /** Of the process in the background, when systemd does not keep it. */
  logFile: string;
  /** STRATA_DIR, when it holds all of it. */
  ownDirectory: string | undefined;
  pidFile: string;
}

type Source = (name: string) => string | undefined;
type Environment = Readonly<Record<string, string | undefined>>;

/** Above every range that Debian, systemd and common container engines hand out, below 2^31. */
const defaultIdBase = 1_900_000_000;
const machineStateDir = "/var/lib/strata";
/** Not below the state directory: it outlives an uninstall. */
const machineBackupDir = "/var/backups/strata";
const logLevels = ["debug", "info", "warn", "error"];

/** @throws Invalid with a field for each wrong setting. */
export function readSettings(env: Environment, option: Source = () => undefined, fake = false): Settings {
  const value = (name: string) =>
    option(name) ?? (env[`STRATA_${name.toUpperCase().replaceAll("-", "_")}`] || undefined);
  const dir = value("dir");
  const base = dir === undefined ? undefined : resolve(dir);
  const stateDir = resolve(value("state-dir") ?? (base ? join(base, "state") : machineStateDir));
  const runDir = resolve(value("run-dir") ?? (base ? join(base, "run") : "/run/strata"));
  const own = base === undefined ? undefined : createHash("sha256").update(base).digest();
  const settings: Settings = {
    stateDir,
    runDir,
    imageDir: resolve(value("image-dir") ?? (base ? join(base, "images") : join(stateDir, "images"))),
    imageMirrors: mirrorsOf(value("image-mirrors") ?? ""),
    imageNetworks: listOf(value("image-networks")),
    backupDirs: backupDirsOf(value("backup-dirs")) ?? [
      base === undefined ? machineBackupDir : join(base, "backups"),
    ],
    s3Networks: listOf(value("s3-networks")),
    s3Authorities: value("s3-authorities"),
    namespace: value("namespace") ?? (own ? `s${own.toString("hex", 0, 4)}` : "strata"),
    networkPool:
      value("network-pool") ?? (own ? `10.${78 + (own.readUInt32BE(4) % 120)}.0.0/16` : "10.77.0.0/16"),
    addressPool: value("address-pool") ?? (own ? `100.126.${own[8]}.0/24` : "100.127.0.0/24"),
    dockerSocket: resolve(value("docker-socket") ?? "/run/docker.sock"),
    buildNetwork: value("build-network"),
    idBase: Number(value("id-base") ?? defaultIdBase),
    socketPath: resolve(value("socket") ?? join(runDir, "strata.sock")),
    httpsPort: Number(value("https-port") ?? (base ? 0 : 7443)),
    logLevel: value("log-level") ?? "info",
    fake: fake || value("fake") === "1",
    logFile: join(stateDir, "daemon.log"),
    ownDirectory: base,
    pidFile: join(runDir, "daemon.pid"),
  };
  const fields = problems(settings);
  if (fields.length > 0) throw new StrataError("Invalid", "the daemon's settings are not valid", { fields });
  return settings;
}

function listOf(text = ""): string[] {
  return text.split(",").filter((part) => part !== "");
}

/** With colons between, as in PATH; `none`: nowhere. */
function backupDirsOf(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  return text === "none" ? [] : text.split(":").filter((path) => path !== "");
}

/** `FROM=TO,FROM=TO` */
function mirrorsOf(text: string): Record<string, string> {
  const pairs = text.split(",").filter((pair) => pair !== "");
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      return at < 0 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

/** A Unix socket's path has at most 107 bytes. */
const maxSocketBytes = 107;

function problems(settings: Settings): FieldError[] {
  const fields: FieldError[] = [];
  const require = (holds: boolean, path: string, message: string, allowed: string) => {
    if (!holds) fields.push({ path, message, allowed });
  };
  const { namespace, networkPool, addressPool, idBase, httpsPort, logLevel, socketPath } = settings;
  require(/^[a-z][a-z0-9-]{0,15}$/.test(
    namespace,
  ), "namespace", `"${namespace}" cannot be used`, "1 to 16 of a-z, 0-9 and '-', starting with a letter");
  const [address = "", prefix = ""] = networkPool.split("/");
  const poolIsRange = isIPv4(address) && /^\d+$/.test(prefix) && Number(prefix) >= 8 && Number(prefix) <= 24;
  require(poolIsRange, "network-pool", `"${networkPool}" is no range`, "an IPv4 range from /8 to /24, such as 10.77.0.0/16");
  require(parseRange(addressPool)?.range.family ===
    4, "address-pool", `"${addressPool}" is no range`, "an IPv4 range such as 192.168.1.240/28");
  const urls = Object.entries(settings.imageMirrors).flat();
  require(urls.every(
    (url) => /^https?:\/\/[^\s,=]+$/.test(url) && URL.canParse(url),
  ), "image-mirrors", "has something that is no address", "FROM=TO, with commas between, each an http:// or https:// URL");
  const { buildNetwork } = settings;
  require(buildNetwork === undefined ||
    /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(
      buildNetwork,
    ), "build-network", "is no name of a network", "a network of the Docker Engine, such as host, none or bridge");
  require(settings.backupDirs.every((path) =>
    /^\/[^:\s]+$/.test(path),
  ), "backup-dirs", "has something that is no directory", "absolute paths with `:` between, or none");
  for (const [path, networks] of [
    ["image-networks", settings.imageNetworks],
    ["s3-networks", settings.s3Networks],
  ] as const) {
    require(networks.every(
      (network) => parseNetwork(network) !== undefined,
    ), path, "has something that is no network", "ranges or addresses with commas between, such as 192.168.7.0/24,fd00::5");
  }
  require(settings.s3Authorities === undefined ||
    settings.s3Authorities.startsWith(
      "/",
    ), "s3-authorities", "is no file", "an absolute path of a file with certificates in PEM");
  require(Number.isInteger(idBase) &&
    idBase >= 65_536 &&
    idBase <= 4_000_000_000, "id-base", "is out of range", "65536 to 4000000000");
  require(Number.isInteger(httpsPort) &&
    httpsPort >= 0 &&
    httpsPort <= 65_535, "https-port", "is no port", "0 to 65535");
  require(logLevels.includes(logLevel), "log-level", `"${logLevel}" is not known`, logLevels.join(", "));
  require(Buffer.byteLength(socketPath) <=
    maxSocketBytes, "socket", `${socketPath} is too long for a socket`, `up to ${maxSocketBytes} bytes`);
  return fields;
}

/** Where backups lie unless the operator says otherwise. */
export function ownBackupDir({ ownDirectory }: Settings): string {
  return ownDirectory === undefined ? machineBackupDir : join(ownDirectory, "backups");
}

/** The one daemon that belongs to the machine: kept by systemd where there is one. */
export function isMachineDaemon(settings: Settings): boolean {
  return settings.stateDir === machineStateDir && !settings.fake;
}

/** The variables from which `readSettings` makes the same settings again. */
export function settingsEnvironment(settings: Settings): Record<string, string> {
  return {
    ...(settings.ownDirectory === undefined ? {} : { STRATA_DIR: settings.ownDirectory }),
    STRATA_STATE_DIR: settings.stateDir,
    STRATA_RUN_DIR: settings.runDir,
    STRATA_IMAGE_DIR: settings.imageDir,
    ...(Object.keys(settings.imageMirrors).length === 0
      ? {}
      : {
          STRATA_IMAGE_MIRRORS: Object.entries(settings.imageMirrors)
            .map((pair) => pair.join("="))
            .join(","),
        }),
    ...(settings.imageNetworks.length === 0
      ? {}
      : { STRATA_IMAGE_NETWORKS: settings.imageNetworks.join(",") }),
    STRATA_BACKUP_DIRS: settings.backupDirs.join(":") || "none",
    ...(settings.s3Networks.length === 0 ? {} : { STRATA_S3_NETWORKS: settings.s3Networks.join(",") }),
    ...(settings.s3Authorities === undefined ? {} : { STRATA_S3_AUTHORITIES: settings.s3Authorities }),
    STRATA_NAMESPACE: settings.namespace,
    STRATA_NETWORK_POOL: settings.networkPool,
    STRATA_ADDRESS_POOL: settings.addressPool,
    STRATA_DOCKER_SOCKET: settings.dockerSocket,
    ...(settings.buildNetwork === undefined ? {} : { STRATA_BUILD_NETWORK: settings.buildNetwork }),
    STRATA_ID_BASE: String(settings.idBase),
    STRATA_SOCKET: settings.socketPath,
    STRATA_HTTPS_PORT: String(settings.httpsPort),
    STRATA_LOG_LEVEL: settings.logLevel,
    ...(settings.fake ? { STRATA_FAKE: "1" } : {}),
  };
}
