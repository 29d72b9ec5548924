/** The options that say what an instance is: of `launch`, and of groups, whose members are made so. */
import { readFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { instanceLimits } from "../../kinds/instance.ts";
import type { Call, OptionSpec } from "../command.ts";

export const templateOptions: readonly OptionSpec[] = [
  {
    flags: "--type <type>",
    summary: "vm or container (default: container)",
    choices: ["vm", "container"],
  },
  { flags: "--cpus <number>", summary: "virtual CPUs" },
  { flags: "--memory <size>", summary: "such as 512MiB" },
  { flags: "--disk <size>", summary: "such as 8GiB" },
  { flags: "--network <name>", summary: "network of the project" },
  { flags: "--subnet <name>", summary: "its subnet, where the network has several" },
  {
    flags: "--security-group <name>",
    summary: "who may talk to it, and to whom it may talk (default: default)",
    repeatable: true,
  },
  { flags: "--key-pair <name>", summary: "SSH key that it accepts", repeatable: true },
  { flags: "--user-data <file>", summary: "cloud-init user data" },
  {
    flags: "--service <name:port[/protocol]>",
    summary: "port it serves, such as web:80/http",
    repeatable: true,
  },
  {
    flags: "--restart-policy <policy>",
    summary: "when it ends by itself",
    choices: ["always", "on-failure", "never"],
  },
  { flags: "--driver <name>", summary: "a driver of the host, such as docker" },
  { flags: "-e, --env <name=value>", summary: "variable of the command after --", repeatable: true },
];

/** What was left out is left to its default. */
export async function templateOf(call: Call, image: string): Promise<JsonObject> {
  const { options, session } = call;
  const userDataFile = options.text("user-data");
  const wanted = {
    cpus: options.count("cpus"),
    memoryMib: options.mib("memory"),
    diskMib: options.mib("disk"),
    network: options.text("network"),
    subnet: options.text("subnet"),
    securityGroups: given(options.texts("security-group")),
    application: applicationOf(call),
    restartPolicy: options.text("restart-policy"),
    // Only that driver runs a command instead of the image's init.
    driver: options.text("driver") ?? (call.rest.length > 0 ? "docker" : undefined),
    userData:
      userDataFile === undefined ? undefined : await readUserData(resolvePath(session.cwd, userDataFile)),
  };
  const spec: JsonObject = {
    type: options.text("type") ?? "container",
    image,
    keyPairs: [...options.texts("key-pair")],
    services: options.texts("service").map(parseService),
  };
  for (const [key, value] of Object.entries(wanted)) if (value !== undefined) spec[key] = value;
  return spec;
}

function given(texts: readonly string[]): string[] | undefined {
  return texts.length === 0 ? undefined : [...texts];
}

function applicationOf({ args, rest, options }: Call): JsonObject | undefined {
  const variables = options.texts("env");
  if (rest.length > 0)
    return { command: [...rest], environment: Object.fromEntries(variables.map(parseVariable)) };
  const [, , stray] = args;
  if (stray !== undefined) {
    throw new StrataError("Invalid", `"${stray}" is one argument too many: put -- before a command`);
  }
  if (variables.length > 0) {
    throw new StrataError("Invalid", "--env is for the command of an application container: add -- COMMAND");
  }
  return undefined;
}

async function readUserData(path: string): Promise<string> {
  const data = await readFile(path).catch((cause: unknown) => {
    throw new StrataError("Invalid", `cannot read the user data from ${path}`, { cause });
  });
  if (data.length > instanceLimits.userDataBytes) {
    throw new StrataError(
      "Invalid",
      `${path} has ${data.length} bytes; user data may have ${instanceLimits.userDataBytes}`,
    );
  }
  return data.toString("utf8");
}

function parseService(text: string): JsonObject {
  const [, name, port, protocol] = /^([^:]+):(\d{1,5})(?:\/([a-z]+))?$/.exec(text) ?? [];
  if (name === undefined || port === undefined) {
    throw new StrataError("Invalid", `--service must be NAME:PORT or NAME:PORT/PROTOCOL, not "${text}"`);
  }
  return { name, port: Number(port), ...(protocol ? { protocol } : {}) };
}

function parseVariable(text: string): [string, string] {
  const index = text.indexOf("=");
  if (index < 1) throw new StrataError("Invalid", `--env must be NAME=VALUE, not "${text}"`);
  return [text.slice(0, index), text.slice(index + 1)];
}

export function parseLabel(text: string): [string, string] {
  const index = text.indexOf("=");
  if (index < 1) throw new StrataError("Invalid", `--label must be KEY=VALUE, not "${text}"`);
  return [text.slice(0, index), text.slice(index + 1)];
}
