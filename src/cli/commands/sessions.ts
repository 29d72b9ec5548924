/** Into an instance: exec, shell, console, logs, ssh. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { hostKind } from "../../kinds/host.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { ArgumentSpec, Call, CommandSpec, Session } from "../command.ts";
import { readReach } from "../networks/reach.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { joinTerminal, requireTerminal, terminalSize } from "../terminal-session.ts";

const instance: ArgumentSpec = {
  name: "<instance>",
  summary: "name or beginning of the id",
  completes: "instances",
};
const separatorHint = "put -- before a command: what follows it belongs to the command";
const user = { flags: "-l, --user <name>", summary: "user to log in as (default: root)" };

export const sessionCommands: readonly CommandSpec[] = [
  {
    path: "exec",
    group: "Instances",
    summary: "Run a command as root in an instance, with its input, output and exit status",
    arguments: [instance, { name: "<command...>", summary: "program and its arguments" }],
    options: [
      { flags: "-t, --tty", summary: "with a terminal" },
      { flags: "-e, --env <name=value>", summary: "variable of its environment", repeatable: true },
    ],
    examples: ["strata exec lms -- uname -a", "tar c data | strata exec lms -- tar x -C /srv"],
    hint: separatorHint,
    run: exec,
  },
  {
    path: "shell",
    group: "Instances",
    summary: "Open a root shell in an instance",
    arguments: [instance],
    examples: ["strata shell enrollment-1"],
    run: shell,
  },
  {
    path: "console",
    group: "Instances",
    summary: "Attach to the serial console of an instance",
    arguments: [instance],
    examples: ["strata console lms"],
    run: console,
  },
  {
    path: "logs",
    group: "Instances",
    summary: "Show what an instance printed on its console",
    arguments: [instance],
    options: [
      { flags: "-f, --follow", summary: "go on with what comes" },
      { flags: "--bytes <number>", summary: "how much of its end (default: 65536)" },
    ],
    examples: ["strata logs lms", "strata logs lms -f"],
    run: logs,
  },
  {
    path: "ssh",
    group: "Instances",
    summary: "Log in to an instance with ssh",
    arguments: [instance, { name: "[command...]", summary: "command to run there" }],
    options: [user, { flags: "-i, --identity <file>", summary: "private key" }],
    examples: ["strata ssh lms", "strata ssh lms -l debian -- uptime"],
    hint: separatorHint,
    run: ssh,
  },
];

async function find(call: Call): Promise<Instance> {
  const { session } = call;
  const client = await session.client();
  return await resolve(client, instanceKind, session.project, call.args[0] ?? "", session.signal);
}

function refOf({ metadata }: Instance): { project: string; name: string } {
  return { project: metadata.project ?? "default", name: metadata.name };
}

async function exec(call: Call): Promise<Output> {
  const { session, options } = call;
  const target = await find(call);
  const command = call.args.slice(1);
  if (command.length === 0)
    throw new StrataError("Invalid", "name a command: strata exec INSTANCE -- COMMAND");
  const env = Object.fromEntries(options.texts("env").map(parseVariable));
  return await runInside(session, target, { command, env, tty: options.flag("tty") });
}

function parseVariable(text: string): [string, string] {
  const index = text.indexOf("=");
  if (index < 1) throw new StrataError("Invalid", `--env must be NAME=VALUE, not "${text}"`);
  return [text.slice(0, index), text.slice(index + 1)];
}

async function runInside(
  session: Session,
  target: Instance,
  request: { command: string[]; env: Record<string, string>; tty: boolean },
): Promise<Output> {
  const { command, tty } = request;
  const env = tty ? { TERM: session.env.TERM ?? "xterm-256color", ...request.env } : request.env;
  const parameters: JsonObject = { command, env, ...(tty ? { tty: terminalSize(session) } : {}) };
  const client = await session.client();
  const channel = await client.openSession("exec", refOf(target), parameters, session.signal);
  const status = await joinTerminal(session, channel, { raw: tty, input: true, resizes: tty });
  return { type: "done", status };
}

const loginShell = "cd; if [ -x /bin/bash ]; then exec /bin/bash -l; fi; exec /bin/sh -l";

async function shell(call: Call): Promise<Output> {
  const { session } = call;
  requireTerminal(session, "shell");
  const target = await find(call);
  const { name } = target.metadata;
  const abilities = await abilitiesOf(session, target);
  if (!abilities || abilities.includes("exec-tty")) {
    const env = { HOME: "/root", USER: "root", LOGNAME: "root" };
    return await runInside(session, target, { command: ["/bin/sh", "-c", loginShell], env, tty: true });
  }
  if (target.spec.keyPairs.length > 0) return await ssh(call);
  throw new StrataError(
    "Unsupported",
    `the driver ${target.status.driver} gives no terminal in "${name}": use \`strata console ${name}\`, or give it a key pair and use \`strata ssh ${name}\``,
  );
}

/** What the driver of a running instance can do; undefined when the caller may not see hosts. */
async function abilitiesOf(session: Session, target: Instance): Promise<readonly string[] | undefined> {
  const { host, driver } = target.status;
  if (host === undefined || driver === undefined) return undefined;
  const client = await session.client();
  const found = await client.get(hostKind, { name: host }, { signal: session.signal }).catch(() => undefined);
  return found?.status.drivers[driver]?.abilities;
}

async function console(call: Call): Promise<Output> {
  const { session } = call;
  requireTerminal(session, "console");
  const target = await find(call);
  const client = await session.client();
  const channel = await client.openSession("console", refOf(target), {}, session.signal);
  session.printer.note(`connected to ${target.metadata.name}; Ctrl-] leaves, Enter shows a prompt`);
  const status = await joinTerminal(session, channel, { raw: true, input: true, escape: true });
  session.printer.note("\r\nleft the console");
  return { type: "done", status };
}

async function logs(call: Call): Promise<Output> {
  const { session, options } = call;
  const target = await find(call);
  const client = await session.client();
  const tailBytes = options.count("bytes");
  const parameters = { follow: options.flag("follow"), ...(tailBytes === undefined ? {} : { tailBytes }) };
  const channel = await client.openSession("log", refOf(target), parameters, session.signal);
  return { type: "done", status: await joinTerminal(session, channel, { raw: false, input: false }) };
}

async function ssh(call: Call): Promise<Output> {
  const { session, options } = call;
  const target = await find(call);
  const { name, uid } = target.metadata;
  const client = await session.client();
  const reach = await readReach(client, { project: session.project }, session.target, session.signal);
  const place = reach.ssh(target);
  if (place === undefined)
    throw new StrataError("Conflict", `"${name}" has no address yet: it is ${target.status.state}`);
  const home = session.env.HOME ?? "/root";
  const identity = options.text("identity") ?? knownIdentity(home, target);
  const command = call.args.slice(1);
  const args = [
    // Addresses are used again by later instances; the uid never is.
    ...["-o", `HostKeyAlias=strata-${uid}`],
    ...["-o", "StrictHostKeyChecking=accept-new"],
    ...["-o", `UserKnownHostsFile=${join(home, ".ssh", "strata_known_hosts")}`],
    ...["-l", options.text("user") ?? "root"],
    ...(identity === undefined ? [] : ["-i", identity, "-o", "IdentitiesOnly=yes"]),
    // The host's own routes lead to one of the networks that have this range; the sender's address says which is meant.
    ...(place.bind === undefined ? [] : ["-b", place.bind]),
    ...(place.port === undefined ? [] : ["-p", String(place.port)]),
    ...["--", place.host, ...command],
  ];
  return { type: "done", status: await session.machine.foreground("ssh", args) };
}

/** The file that `strata key-pair create` made for one of the instance's key pairs. */
function knownIdentity(home: string, target: Instance): string | undefined {
  return target.spec.keyPairs
    .map((keyPair) => join(home, ".ssh", `strata-${keyPair}`))
    .find((path) => existsSync(path));
}
