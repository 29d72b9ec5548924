/** Configuration of one HAProxy. Pure. Words as in the HAProxy 2.6 configuration manual. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { balancerLimits, type LoadBalancerSpec } from "../../kinds/load-balancer.ts";
import type { ServerRequest } from "./balancers.ts";

/** Where a balancer's things are. */
export interface BalancerPaths {
  directory: string;
  config: string;
  pid: string;
  admin: string;
  certificates: string;
  challenges: string;
  /** Root of the worker's file system: nothing but the next two sockets is in it. */
  jail: string;
  holder: string;
  /** HAProxy's own: closes each connection after a while. */
  pause: string;
  /** A named pipe, which HAProxy has open from its start. */
  log: string;
}

export interface ConfigOptions {
  paths: BalancerPaths;
  /** Whom the worker becomes. */
  user: string;
  group: string;
  ipv6: boolean;
  /** Of those that a reload has to bring (`largeCertificates`): their content is part of the structure. */
  large: readonly string[];
}

export const backendName = "targets";
export const holderName = "holder";
/** Gets what comes while there is no server, of HTTP. */
export const heldName = "held";
/** More connections than all servers may have together: whoever sees so many free sees the holder alone. */
const holderConnections = 2_000_000_000;
const pauseMs = 500;
/** At which HAProxy's master and workers have the log's pipe open. Its standard output ends when it leaves the foreground. */
export const logDescriptor = 9;
/**
 * Of more requests a second than `above` at one listener (connections, of TCP), one in `oneIn` is logged: lines cost
 * HAProxy processor time, and their reader more. Chosen before a line is made, and by chance, so that figures of the
 * sample are those of the whole. Below that everything is, so that a rise from little is seen at once.
 */
const sampling = { accessLog: { above: 2_000, oneIn: 20 }, latencies: { above: 1_000, oneIn: 50 } };
/**
 * HAProxy takes a command and gives an answer of at most 16 KiB (tune.bufsize). A certificate with its key up to this size fits,
 * and so does what HAProxy tells of it, which has all of its names.
 */
const commandBytes = 12 * 1024;
/** Fine enough for a slow start to begin with a small share. */
const weight = 100;
const cookieName = "strata-instance";

export function balancerPaths(root: string, uid: string): BalancerPaths {
  const directory = join(root, uid);
  const jail = join(directory, "jail");
  return {
    directory,
    jail,
    config: join(directory, "haproxy.cfg"),
    pid: join(directory, "pid"),
    admin: join(directory, "admin.sock"),
    certificates: join(directory, "certificates"),
    challenges: join(directory, "challenges.map"),
    holder: join(jail, "holder.sock"),
    pause: join(jail, "pause.sock"),
    log: join(directory, "log.pipe"),
  };
}

export function certificateFile(paths: BalancerPaths, name: string): string {
  return join(paths.certificates, `${name}.pem`);
}

/**
 * The source is part of the name: a server of another source is another server, and HAProxy tells names but not
 * sources.
 */
export function serverName({ uid, address, port, source }: ServerRequest): string {
  const place = createHash("sha256").update(`${address} ${port} ${source}`).digest("hex").slice(0, 8);
  return `${uid}.${place}`;
}

export function uidOfServer(name: string): string {
  return name.split(".", 1)[0] ?? "";
}

export function isLarge(pem: string): boolean {
  return Buffer.byteLength(pem) > commandBytes;
}

/** Digests of those that cannot be exchanged by a command, in the order of their names. */
export function largeCertificates(certificates: ReadonlyMap<string, string>): string[] {
  return [...certificates]
    .filter(([, pem]) => isLarge(pem))
    .map(([name, pem]) => `${name} ${createHash("sha256").update(pem).digest("hex")}`)
    .sort();
}

/** The digest is in the text, so that HAProxy tells what it runs with. */
export function renderConfig(
  spec: LoadBalancerSpec,
  servers: readonly ServerRequest[],
  options: ConfigOptions,
): string {
  const digest = structureDigest(spec, options);
  const lines = [
    ...globalSection(spec, options, digest),
    ...defaultsSection(spec),
    ...spec.listeners.flatMap((listener) => frontend(spec, listener, options)),
    ...heldSections(spec, options),
    ...backend(spec),
    ...servers.map((one) => {
      const disabled = one.draining ? " disabled" : "";
      return `  server ${serverName(one)} ${serverParameters(spec, one)}${disabled}`;
    }),
  ];
  return `${lines.join("\n")}\n`;
}

/** Of all but the servers. */
export function structureDigest(spec: LoadBalancerSpec, options: ConfigOptions): string {
  const text = [
    ...globalSection(spec, options, ""),
    ...defaultsSection(spec),
    ...spec.listeners.flatMap((listener) => frontend(spec, listener, options)),
    ...heldSections(spec, options),
    ...backend(spec),
    checkParameters(spec),
    ...options.large,
  ].join("\n");
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** Address and all settings of a server: for the configuration and for `add server`, which knows no defaults. */
export function serverParameters(spec: LoadBalancerSpec, server: ServerRequest): string {
  const address = server.address.includes(":") ? `[${server.address}]` : server.address;
  return `${address}:${server.port} source ${server.source} ${checkParameters(spec)}`;
}

function checkParameters(spec: LoadBalancerSpec): string {
  const { intervalMs, rise, fall } = spec.healthCheck;
  return [
    `check inter ${intervalMs}ms rise ${rise} fall ${fall} weight ${weight}`,
    ...(spec.slowStartSeconds > 0 ? [`slowstart ${spec.slowStartSeconds}s`] : []),
    ...(spec.maxPerInstance === undefined ? [] : [`maxconn ${spec.maxPerInstance}`]),
    ...(isHttp(spec) && spec.targetProtocol === "http2" ? ["proto h2"] : []),
  ].join(" ");
}

function globalSection(spec: LoadBalancerSpec, options: ConfigOptions, digest: string): string[] {
  const { paths, user, group } = options;
  return [
    "global",
    `  chroot ${paths.jail}`,
    `  user ${user}`,
    `  group ${group}`,
    `  stats socket ${paths.admin} mode 600 level admin expose-fd listeners`,
    "  stats timeout 1h",
    `  maxconn ${spec.maxConnections + (outlivesDaemon(spec) ? balancerLimits.maxHeld : 0)}`,
    `  description ${digest}`,
    `  hard-stop-after ${Math.max(spec.timeouts.tunnelSeconds, spec.timeouts.serverSeconds)}s`,
    "  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets",
    `  log fd@${logDescriptor} len 2048 format raw local0 info`,
  ];
}

function defaultsSection(spec: LoadBalancerSpec): string[] {
  const { timeouts, queueSeconds } = spec;
  // A request may be held for as long as it may wait, without a byte from anybody.
  const held = queueSeconds + 1;
  const client = isHttp(spec) ? timeouts.clientSeconds : Math.max(timeouts.clientSeconds, held);
  return [
    "defaults",
    `  mode ${isHttp(spec) ? "http" : "tcp"}`,
    "  log global",
    `  log-format "${logFormat(spec)}"`,
    "  option dontlognull",
    // A connection that is kept open is closed by a reload only after its next answer: no request meets a closed one.
    ...(isHttp(spec) ? ["  option idle-close-on-response"] : []),
    `  timeout connect ${timeouts.connectSeconds}s`,
    `  timeout client ${client}s`,
    `  timeout server ${Math.max(timeouts.serverSeconds, held)}s`,
    `  timeout tunnel ${timeouts.tunnelSeconds}s`,
    // 0 would mean the time for connecting.
    `  timeout queue ${queueSeconds === 0 ? "1ms" : `${queueSeconds}s`}`,
    ...(isHttp(spec) ? [`  timeout http-request ${timeouts.clientSeconds}s`] : []),
    `  timeout check ${spec.healthCheck.timeoutMs}ms`,
    "  retries 3",
    "  option redispatch 1",
  ];
}

/** Read by agent/balancers/access-log.ts. Without an access log only what latencies are measured from. */
function logFormat(spec: LoadBalancerSpec): string {
  if (!spec.accessLog) return isHttp(spec) ? "L %s %Ta" : "L %s %Tt";
  return isHttp(spec) ? "R %Ts %ms %ci %s %ST %B %Ta %Tw %{+Q}r" : "C %Ts %ms %ci %s %B %Tt %Tw %ts";
}

function samplingRule(spec: LoadBalancerSpec): string {
  const { above, oneIn } = spec.accessLog ? sampling.accessLog : sampling.latencies;
  const [rules, rate] = isHttp(spec)
    ? ["http-request", "fe_req_rate"]
    : ["tcp-request content", "fe_sess_rate"];
  return `  ${rules} set-log-level silent if { ${rate} gt ${above} } { rand(${oneIn}) gt 0 }`;
}

type Listener = LoadBalancerSpec["listeners"][number];

function frontend(spec: LoadBalancerSpec, listener: Listener, options: ConfigOptions): string[] {
  const { port, protocol, redirectTo } = listener;
  const encrypted = protocol === "https" || protocol === "tls";
  const parameters = [
    ...(encrypted
      ? ["ssl", ...listener.certificates.map((name) => `crt ${certificateFile(options.paths, name)}`)]
      : []),
    ...(protocol === "https" ? ["alpn h2,http/1.1"] : []),
  ];
  const bind = (address: string, ...more: string[]) =>
    `  bind ${[`${address}:${port}`, ...parameters, ...more].join(" ")}`;
  return [
    `frontend port-${port}`,
    bind("*"),
    ...(options.ipv6 ? [bind("::", "v6only")] : []),
    `  maxconn ${spec.maxConnections}`,
    ...allowRules(listener),
    samplingRule(spec),
    ...(protocol === "http" ? challengeRules(options.paths) : []),
    ...(isHttp(spec) ? forwardedRules(port, encrypted) : []),
    ...(redirectTo === undefined ? [] : redirectRules(redirectTo)),
    ...(outlivesDaemon(spec)
      ? [`  use_backend ${heldName} if { be_conn_free(${backendName}) ge ${holderConnections / 2} }`]
      : []),
    `  default_backend ${backendName}`,
  ];
}

function allowRules({ allowFrom }: Listener): string[] {
  const all = ["0.0.0.0/0", "::/0"].every((range) => allowFrom.includes(range));
  if (all) return [];
  return [
    ...allowFrom.map((range) => `  acl allowed src ${range}`),
    "  tcp-request connection reject unless allowed",
  ];
}

/** Also where everything else is redirected: the authority asks without TLS. Any other path costs one comparison. */
function challengeRules({ challenges }: BalancerPaths): string[] {
  const answer = `path,field(4,/),map(${challenges})`;
  const asked = `{ path_beg /.well-known/acme-challenge/ } { ${answer} -m found }`;
  return [`  http-request return status 200 content-type text/plain lf-string "%[${answer}]" if ${asked}`];
}

function forwardedRules(port: number, encrypted: boolean): string[] {
  return [
    "  option forwardfor",
    `  http-request set-header X-Forwarded-Proto ${encrypted ? "https" : "http"}`,
    `  http-request set-header X-Forwarded-Port ${port}`,
  ];
}

function redirectRules(port: number): string[] {
  const place = port === 443 ? "" : `:${port}`;
  return [
    `  http-request redirect code 308 location "https://%[req.hdr(host),field(1,:)]${place}%[capture.req.uri]"`,
  ];
}

/** HAProxy repeats a request that is held only if it knows where requests begin and end. */
function outlivesDaemon(spec: LoadBalancerSpec): boolean {
  return isHttp(spec) && spec.targetProtocol === "http1";
}

/**
 * Requests that are held outlive the holder: HAProxy asks again while nobody listens there, or when it went away. Between two
 * attempts it asks itself, which takes `pauseMs` and has no answer either: it would not wait by itself where a Unix socket
 * refuses at once. What may not be done twice (RFC 9110, 9.2.2) is not asked again once it was sent, because the holder
 * may have passed it on.
 */
function heldSections(spec: LoadBalancerSpec, { paths, user, group }: ConfigOptions): string[] {
  if (!outlivesDaemon(spec)) return [];
  const attempts = Math.max(3, Math.ceil((spec.queueSeconds * 2_000) / pauseMs));
  return [
    `backend ${heldName}`,
    "  balance roundrobin",
    `  retries ${attempts}`,
    "  retry-on conn-failure empty-response",
    "  http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }",
    `  server ${holderName} unix@/holder.sock pool-max-conn 0 weight 256`,
    "  server pause unix@/pause.sock pool-max-conn 0 weight 1",
    "frontend pause",
    "  mode tcp",
    "  no log",
    '  log-format "-"',
    `  bind unix@${paths.pause} mode 600 user ${user} group ${group}`,
    `  maxconn ${balancerLimits.maxHeld}`,
    `  tcp-request inspect-delay ${pauseMs}ms`,
    "  tcp-request content reject if WAIT_END",
  ];
}

function backend(spec: LoadBalancerSpec): string[] {
  const { healthCheck, algorithm, sticky, targetProtocol } = spec;
  const bySource = sticky === "source";
  const http2 = isHttp(spec) && targetProtocol === "http2";
  return [
    `backend ${backendName}`,
    `  balance ${algorithm === "least-connections" ? "leastconn" : "roundrobin"}`,
    ...(bySource ? ["  stick-table type ipv6 size 100k expire 1h", "  stick on src"] : []),
    ...(sticky === "cookie" ? cookieRules() : []),
    ...(healthCheck.type === "http"
      ? [
          "  option httpchk",
          `  http-check send meth GET uri '${healthCheck.path}' ver HTTP/1.1 hdr Host strata`,
          "  http-check expect status 200-399",
        ]
      : []),
    // Gets what arrives while no server is there; nothing stays open to it that could be taken for a server.
    `  server ${holderName} unix@/holder.sock backup pool-max-conn 0 weight 1${http2 ? " proto h2" : ""}${outlivesDaemon(spec) ? ` maxconn ${holderConnections}` : ""}`,
  ];
}

/**
 * HAProxy's own cookies are not for servers that are added at run time. Nobody stays with the holder: it is always there,
 * and would be asked ever after.
 */
function cookieRules(): string[] {
  const given = `req.cook(${cookieName})`;
  return [
    `  http-request set-var(txn.sticky) ${given}`,
    `  http-response add-header Set-Cookie "${cookieName}=%s; Path=/; HttpOnly" unless { srv_name,strcmp(txn.sticky) eq 0 } or { srv_name ${holderName} }`,
    `  use-server %[${given}] if { ${given} -m found } !{ ${given} ${holderName} }`,
  ];
}

function isHttp(spec: LoadBalancerSpec): boolean {
  return spec.listeners.some(({ protocol }) => protocol === "http" || protocol === "https");
}
