/** `image build`: from a Dockerfile of this machine, or from a Debian suite. */
import { basename, posix, resolve as resolvePath } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import { imageKind } from "../../kinds/image.ts";
import { expectDockerfile, packContext } from "../build/pack-context.ts";
import type { Call, CommandSpec, OptionSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { follow, patience } from "../watching.ts";
import { makeImage } from "./make-image.ts";

const debianOptions: readonly OptionSpec[] = [
  { flags: "--suite <suite>", summary: "without a directory: bookworm or trixie (default: bookworm)" },
  {
    flags: "--package <name>",
    summary: "without a directory: package to install as well",
    repeatable: true,
  },
];
const dockerfileOptions: readonly OptionSpec[] = [
  { flags: "-f, --file <path>", summary: "the Dockerfile, in the directory (default: Dockerfile)" },
  { flags: "--build-arg <name=value>", summary: "value of an ARG", repeatable: true },
  { flags: "--target <stage>", summary: "the stage that becomes the image (default: the last one)" },
  { flags: "--no-cache", summary: "make every step anew" },
  { flags: "--memory <size>", summary: "of each step (default: 2GiB)" },
  { flags: "--cpus <number>", summary: "of each step (default: 2)" },
  { flags: "--time-limit <seconds>", summary: "of the whole build (default: 1800; at most 7200)" },
];

export const buildImageCommand: CommandSpec = {
  path: "image build",
  group: "Images and keys",
  summary: "Build an image from a directory with a Dockerfile, or from a Debian suite",
  arguments: [
    { name: "<name>", summary: "its name in the project; left out, that of the directory" },
    { name: "[directory]", summary: "with the Dockerfile and what it needs", completes: "files" },
  ],
  options: [...dockerfileOptions, ...debianOptions, { flags: "--description <text>", summary: "for people" }],
  examples: [
    "strata image build shop ./shop",
    "strata image build ./shop --build-arg VERSION=2",
    "strata image build debian12",
    "strata image build web --suite trixie --package nginx --package git",
  ],
  run: (call) => {
    const [first = "", second] = call.args;
    // No name has a slash or begins with a dot.
    const alone = second === undefined && (first.includes("/") || first.startsWith("."));
    const directory = alone ? first : second;
    if (directory === undefined) return buildDebian(call, first);
    const path = resolvePath(call.session.cwd, directory);
    return buildDockerfile(call, alone ? basename(path) : first, path);
  },
};

function buildDebian(call: Call, name: string): Promise<Output> {
  const { options } = call;
  refuseOptions(call, dockerfileOptions, "is for a directory with a Dockerfile; give it after the name");
  const suite = options.text("suite") ?? "bookworm";
  return makeImage(call, name, { type: "debian", suite, packages: [...options.texts("package")] });
}

async function buildDockerfile(call: Call, name: string, directory: string): Promise<Output> {
  const { session, options } = call;
  refuseOptions(call, debianOptions, "has no meaning with a Dockerfile; install packages in it");
  const file = posix.normalize(options.text("file") ?? "Dockerfile");
  await expectDockerfile(directory, file);
  const args = Object.fromEntries(options.texts("build-arg").map(parseArgument));
  const target = options.text("target");
  const limits = {
    ...number("memoryMib", options.mib("memory")),
    ...number("cpus", cpusOf(options.text("cpus"))),
    ...number("seconds", options.count("time-limit")),
  };
  const client = await session.startedClient();
  await makeRoom(call, name);
  session.printer.progress("upload", "sending the context");
  const sent = await client.upload(packContext({ directory, file }), { signal: session.signal });
  session.printer.progress("upload", `sent the context: ${formatBytes(sent.sizeBytes)}`);
  return await makeImage(call, name, {
    ...{ type: "dockerfile", upload: sent.upload, file, args, cache: !options.off("cache"), limits },
    ...(target === undefined ? {} : { target }),
  });
}

/** What could not be built is in nobody's way: the next try takes its name. @throws AlreadyExists for any other image. */
async function makeRoom(call: Call, name: string): Promise<void> {
  const { session } = call;
  const client = await session.client();
  const ref = { project: session.project, name };
  const found = await client.get(imageKind, ref, { signal: session.signal });
  if (found === undefined) return;
  if (found.status.state !== "failed") {
    const message = `there is an image "${name}" already; choose another name, or delete it first`;
    throw new StrataError("AlreadyExists", message);
  }
  await client.delete(imageKind, ref, { signal: session.signal });
  await follow(
    client,
    imageKind,
    { project: session.project },
    patience(session),
    (seen) => !seen.has(`${session.project}/${name}`),
    () => `the image "${name}" that failed goes away`,
  );
}

function parseArgument(text: string): [string, string] {
  const index = text.indexOf("=");
  if (index < 1) throw new StrataError("Invalid", `--build-arg must be NAME=VALUE, not "${text}"`);
  return [text.slice(0, index), text.slice(index + 1)];
}

function cpusOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,4}(\.\d{1,3})?$/.test(text)) return Number(text);
  throw new StrataError("Invalid", `--cpus must be a number such as 2 or 0.5, not "${text}"`);
}

function number(key: string, value: number | undefined): Record<string, number> {
  return value === undefined ? {} : { [key]: value };
}

function refuseOptions({ options }: Call, specs: readonly OptionSpec[], why: string): void {
  for (const { flags } of specs) {
    const name = /--(?:no-)?([a-z-]+)/.exec(flags)?.[1] ?? "";
    const given = options.text(name) !== undefined || options.texts(name).length > 0;
    if (given || (flags.startsWith("--no-") && options.off(name))) {
      throw new StrataError("Invalid", `${flags.split(" ")[0]} ${why}`);
    }
  }
}
