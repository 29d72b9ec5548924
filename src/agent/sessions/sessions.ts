/**
 * Answers what the API asks of this host: commands, consoles and logs of guests, the content of images. Each request is answered by a channel of
 * its own; whatever goes wrong is told through it, and ends with it. Guests are untouched by sessions that break.
 *
 * On the channel: data as in Channel (0 stdin, 1 stdout, 2 stderr); control messages `resize` {columns, rows} and
 * `stdin-end` come in, `exit` {status} and `error` {problem} go out; exports, build logs and drift: see send-whole.
 */
import type { Channel, InstanceSession, SessionRequest } from "../../client/client.ts";
import { describeError, StrataError, toStrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { GuestDriver } from "../../drivers/driver.ts";
import type { Instance } from "../../kinds/instance.ts";
import { backoffMs } from "../../reconcile/backoff.ts";
import type { AgentContext } from "../agent-context.ts";
import { readAccessLog } from "./access-log.ts";
import { consoleParameters, execParameters, logParameters, readParameters } from "./parameters.ts";
import { serveBackupFile } from "./serve-backup-file.ts";
import { serveBuildLog } from "./serve-build-log.ts";
import { serveDrift } from "./serve-drift.ts";
import { serveExport } from "./serve-export.ts";
import { Inbox, pump, type SessionEnds, stderrChannel, stdoutChannel } from "./splice.ts";

/** Sessions open at a time on one host. */
export const maxSessions = 256;
const reconnectBackoff = { minMs: 100, maxMs: 5_000 };

/** Takes session requests until the agent stops; sessions that are open then are ended. */
export async function runSessions(context: AgentContext): Promise<void> {
  const { client, hostName, clock, random, logger, signal } = context;
  const open = new Set<Promise<void>>();
  for (let failures = 0; !signal.aborted; failures++) {
    try {
      for await (const request of client.sessionRequests(hostName, signal)) {
        failures = 0;
        const session = serve(context, request, open.size >= maxSessions).finally(() => open.delete(session));
        open.add(session);
      }
    } catch (error) {
      if (!signal.aborted)
        logger.warn({ error: describeError(error) }, "session requests ended; asking again");
    }
    await clock.sleep(backoffMs(reconnectBackoff, failures + 1, random), signal).catch(() => {});
  }
  await Promise.allSettled(open);
}

/** Never rejects. */
async function serve(context: AgentContext, request: SessionRequest, full: boolean): Promise<void> {
  const { client, logger } = context;
  const { id, verb } = request;
  const what = subjectOf(request);
  const ended = new AbortController();
  const stop = () => ended.abort(context.signal.reason);
  context.signal.addEventListener("abort", stop, { once: true });
  let channel: Channel | undefined;
  try {
    channel = await client.acceptSession(id, ended.signal);
    const inbox = new Inbox(channel, () => ended.abort(new Error("the session was closed")));
    if (full)
      throw new StrataError("Unavailable", `host ${context.hostName} has ${maxSessions} sessions open`);
    if (request.verb === "export") await serveExport(context, request, { channel, inbox }, ended.signal);
    else if (request.verb === "build-log")
      await serveBuildLog(context, request, { channel, inbox }, ended.signal);
    else if (request.verb === "file") {
      await serveBackupFile(context, request, { channel, inbox }, ended.signal);
    } else await instanceVerbs[request.verb](context, request, { channel, inbox }, ended.signal);
  } catch (error) {
    if (!ended.signal.aborted) {
      const { code, message } = toStrataError(error, `${verb} of ${what}`);
      channel?.sendControl({ type: "error", problem: { code, detail: message } });
      logger.info({ verb, what, error: describeError(error) }, "a session failed");
    }
  } finally {
    context.signal.removeEventListener("abort", stop);
    channel?.close();
    ended.abort(new Error("the session is over"));
  }
}

function subjectOf(request: SessionRequest): string {
  if (request.verb === "export" || request.verb === "build-log") return `image "${request.image.name}"`;
  if (request.verb === "file") return `backup "${request.backup.name}"`;
  return `instance "${request.instance.name}"`;
}

type Serve = (
  context: AgentContext,
  request: InstanceSession,
  ends: SessionEnds,
  signal: AbortSignal,
) => Promise<void>;

const instanceVerbs: Record<InstanceSession["verb"], Serve> = {
  async exec(context, request, { channel, inbox }, signal) {
    const { driver, handle } = await guestOf(context, request);
    const { command, env, tty } = readParameters(execParameters, "exec", request.parameters);
    if (!driver.exec) throw unsupported(driver, "run commands in guests");
    const session = await driver.exec.run(handle, { command, env, ...(tty ? { tty } : {}) }, signal);
    inbox.open(session.stdin, (message) => {
      if (message.type === "resize") session.resize(...sizeOf(message));
    });
    // A channel that closes ends the command through the signal; its output then has nowhere to go.
    const [status] = await Promise.all([
      session.exit,
      pump(session.stdout, channel, stdoutChannel),
      pump(session.stderr, channel, stderrChannel),
    ]);
    channel.sendControl({ type: "exit", status });
  },

  async console(context, request, { channel, inbox }, signal) {
    const { driver, handle } = await guestOf(context, request);
    readParameters(consoleParameters, "console", request.parameters);
    if (!driver.console) throw unsupported(driver, "offer a console");
    const stream = await driver.console.attach(handle, signal);
    signal.addEventListener("abort", () => stream.destroy(), { once: true });
    inbox.open(stream);
    try {
      await pump(stream, channel, stdoutChannel);
    } finally {
      stream.destroy();
    }
  },

  async log(context, request, { channel, inbox }, signal) {
    const { driver, handle } = await guestOf(context, request);
    const options = readParameters(logParameters, "log", request.parameters);
    if (!driver.console) throw unsupported(driver, "keep a console log");
    inbox.open(undefined);
    await pump(driver.console.log(handle, options, signal), channel, stdoutChannel);
  },

  async drift(context, request, ends, signal) {
    readParameters(consoleParameters, "drift", request.parameters);
    const { instance, driver, handle } = await guestOf(context, request);
    if (!driver.drift) throw unsupported(driver, "compare a guest with its image");
    await serveDrift(context, { instance, driver, handle, drift: driver.drift }, ends, signal);
  },

  async "access-log"({ balancers, views, hostName, clock }, request, { channel, inbox }, signal) {
    const { project, name, uid } = request.instance;
    const balancer = views.loadBalancers.find({ project, name });
    if (!balancers || balancer?.metadata.uid !== uid) {
      throw new StrataError("NotFound", `load balancer "${name}" is not on host ${hostName}`);
    }
    const options = readParameters(logParameters, "access-log", request.parameters);
    inbox.open(undefined);
    await pump(readAccessLog(balancers.logPath(uid), options, clock, signal), channel, stdoutChannel);
  },
};

/** @throws NotFound, Conflict, Unavailable when there is no guest to talk to. */
async function guestOf(
  context: AgentContext,
  { instance: { project, name, uid } }: InstanceSession,
): Promise<{ instance: Instance; driver: GuestDriver; handle: JsonObject }> {
  const instance = context.views.instances.find({ project, name });
  if (instance?.metadata.uid !== uid || instance.status.host !== context.hostName) {
    throw new StrataError("NotFound", `instance "${name}" is not on host ${context.hostName}`);
  }
  if (instance.status.driver === undefined) {
    const { state, message } = instance.status;
    throw new StrataError("Conflict", `instance "${name}" has no guest yet: it is ${state} (${message})`);
  }
  const driver = context.drivers.require(instance.status.driver);
  const guest = await driver.inspect(instance.metadata.uid);
  if (!guest) throw new StrataError("Unavailable", `the guest of instance "${name}" is not there right now`);
  return { instance, driver, handle: guest.handle };
}

function sizeOf(message: JsonObject): [columns: number, rows: number] {
  const { columns, rows } = message;
  const valid = (value: unknown): value is number => Number.isInteger(value) && Number(value) > 0;
  return valid(columns) && valid(rows) ? [columns, rows] : [80, 24];
}

function unsupported(driver: GuestDriver, ability: string): StrataError {
  return new StrataError("Unsupported", `the driver ${driver.name} cannot ${ability}`);
}
