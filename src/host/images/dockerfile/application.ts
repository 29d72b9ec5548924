/**
 * What a Dockerfile says about its application (ENTRYPOINT, CMD, ENV, USER, WORKDIR, EXPOSE, STOPSIGNAL), as a part of the
 * root tree: `/usr/lib/strata/application.json`, for drivers that run the application itself, and a unit of systemd with
 * the same meaning, for guests that have an init. Pure.
 */
import { posix } from "node:path";
import * as z from "zod";
import type { Json } from "../../../core/json.ts";
import type { ImageConfig } from "../layers/image-archive.ts";
import { readStart } from "../tree-paths.ts";

export const applicationSchema = z.object({
  /** Program and arguments. */
  command: z.array(z.string()).min(1),
  /** `NAME=VALUE`. */
  environment: z.array(z.string()),
  workingDirectory: z.string(),
  /** `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; "" is root. */
  user: z.string(),
  /** `8080/tcp` */
  ports: z.array(z.string()),
  stopSignal: z.string(),
  /** Directories with the application's own data, which is no part of the image. */
  volumes: z.array(z.string()).optional(),
});
export type ImageApplication = z.infer<typeof applicationSchema>;

export const applicationPath = "/usr/lib/strata/application.json";
/** What Strata had to install for the tree to start everywhere: names of packages, one a line. */
export const addedPath = "/usr/lib/strata/added";
export const serviceName = "strata-application.service";

const maxBytes = 1024 ** 2;
const defaultSearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Undefined when the image has neither ENTRYPOINT nor CMD. */
export function applicationOf(config: NonNullable<ImageConfig["config"]>): ImageApplication | undefined {
  const command = [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
  if (command.length === 0) return undefined;
  const volumes = Object.keys(config.Volumes ?? {})
    .map((path) => posix.resolve("/", path))
    .filter((path) => path !== "/")
    .sort();
  return {
    command,
    environment: config.Env ?? [],
    workingDirectory: config.WorkingDir || "/",
    user: config.User ?? "",
    ports: Object.keys(config.ExposedPorts ?? {}).sort(),
    stopSignal: config.StopSignal || "SIGTERM",
    ...(volumes.length > 0 && { volumes }),
  };
}

/** The inverse: so that whoever builds on an image takes over its application, as with every other base. */
export function configOf(application: ImageApplication): Record<string, Json> {
  const { command, environment, workingDirectory, user, ports, stopSignal, volumes } = application;
  return {
    Entrypoint: command,
    Env: environment,
    WorkingDir: workingDirectory,
    User: user,
    ExposedPorts: Object.fromEntries(ports.map((port) => [port, {}])),
    StopSignal: stopSignal,
    ...(volumes && { Volumes: Object.fromEntries(volumes.map((path) => [path, {}])) }),
  };
}

/** The application of a root tree that was made of a Dockerfile. */
export async function readApplication(tree: string): Promise<ImageApplication | undefined> {
  const text = await readStart(tree, applicationPath, maxBytes);
  if (text === undefined) return undefined;
  try {
    return applicationSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** As Docker would run it: same program, user, directory and variables; ended by the same signal; again when it fails. */
export function serviceUnit(application: ImageApplication): string {
  const { command, environment, workingDirectory, user, stopSignal } = application;
  const [name = "", group] = user.split(":");
  const searchPath = environment.findLast((variable) => variable.startsWith("PATH="))?.slice("PATH=".length);
  const lines = [
    "[Unit]",
    "Description=The application of the image",
    "Wants=network-online.target",
    "After=network-online.target",
    "",
    "[Service]",
    "Type=exec",
    `ExecSearchPath=${plain(searchPath || defaultSearchPath)}`,
    `ExecStart=${[program(command[0] ?? "", workingDirectory), ...command.slice(1).map(argument)].join(" ")}`,
    ...environment.map((variable) => `Environment=${quoted(variable)}`),
    ...(searchPath ? [] : [`Environment=${quoted(`PATH=${defaultSearchPath}`)}`]),
    `WorkingDirectory=${plain(workingDirectory)}`,
    `User=${plain(name || "root")}`,
    ...(group ? [`Group=${plain(group)}`] : []),
    `KillSignal=${plain(stopSignal)}`,
    "KillMode=mixed",
    "Restart=on-failure",
    "RestartSec=1",
    "StandardOutput=journal+console",
    "StandardError=journal+console",
    "",
    "[Install]",
    "WantedBy=multi-user.target",
    "",
  ];
  return lines.join("\n");
}

/** A path is taken from the working directory, a name is looked up. Variables are not expanded in it. */
function program(word: string, workingDirectory: string): string {
  return quoted(word.includes("/") ? posix.resolve(workingDirectory, word) : word);
}

/** systemd.service(5), "Command lines": C-like escapes within double quotes, `%` for specifiers, `$` for variables. */
function argument(word: string): string {
  return quoted(word.replaceAll("$", "$$$$"));
}

const quoted = (text: string) => quote(plain(text));
const plain = (text: string) => text.replaceAll("%", "%%");

function quote(text: string): string {
  const escaped = [...text].map((character) => {
    if (character === "\\" || character === '"') return `\\${character}`;
    if (character >= " " && character !== "\x7f") return character;
    return `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`;
  });
  return `"${escaped.join("")}"`;
}
