/** Turns CommandSpecs into a commander program: parsing, help with examples, suggestions for what was misspelt. */
import { Argument, Command, Option } from "commander";
import { StrataError } from "../core/errors.ts";
import { parseMib } from "../core/units.ts";
import type { CommandSpec, OptionSpec, OptionValues } from "./command.ts";
import { commonOptions } from "./common-options.ts";

const overview = `
Examples:
  sudo strata up examples/campus.yaml
  strata list
  strata shell lms

\`strata COMMAND --help\` shows the options and examples of a command. All take --json, --project, --yes, --no-wait,
--timeout, --socket and --url.
`;

export type Invoke = (spec: CommandSpec, args: readonly string[], options: OptionValues) => Promise<void>;

export function buildProgram(
  specs: readonly CommandSpec[],
  invoke: Invoke,
  write: { out(text: string): void; err(text: string): void },
): Command {
  const program = new Command("strata")
    .description("A cloud of your own: virtual machines and containers from one image")
    .enablePositionalOptions()
    .addHelpText("after", overview);
  addOptions(program, commonOptions, "hidden");
  const groups = new Map<string, Command>([["", program]]);
  for (const spec of specs) {
    const words = spec.path.split(" ");
    const parent = groupOf(groups, words.slice(0, -1), spec);
    const command = parent
      .command(words.at(-1) ?? "", { hidden: spec.hidden === true })
      .helpGroup(`${spec.group}:`);
    describeCommand(command, spec);
    command.action(async () => {
      const merged = { ...parent.optsWithGlobals(), ...definedOptions(command) };
      await invoke(spec, command.processedArgs.flat().filter(isString), optionValues(merged));
    });
  }
  for (const command of allCommands(program)) {
    command
      .exitOverride()
      .configureOutput({ writeOut: write.out, writeErr: write.err })
      .showSuggestionAfterError(true)
      .helpCommand(false);
  }
  return program;
}

function describeCommand(command: Command, spec: CommandSpec): void {
  command.summary(spec.summary).description(spec.summary);
  if (spec.passThrough) command.passThroughOptions();
  if (spec.hint) command.showHelpAfterError(`(${spec.hint})`);
  for (const argument of spec.arguments ?? []) {
    const parsed = new Argument(argument.name, argument.summary);
    command.addArgument(argument.choices ? parsed.choices(argument.choices) : parsed);
  }
  addOptions(command, spec.options ?? [], "own");
  addOptions(command, commonOptions, "common");
  command.addHelpText("after", `\nExamples:\n${spec.examples.map((line) => `  ${line}`).join("\n")}\n`);
}

function addOptions(command: Command, options: readonly OptionSpec[], as: "own" | "common" | "hidden"): void {
  for (const spec of options) {
    const option = new Option(spec.flags, spec.summary);
    if (command.options.some((other) => other.long === option.long)) continue;
    if (spec.choices) option.choices(spec.choices);
    if (spec.repeatable) option.argParser((value: string, list?: string[]) => [...(list ?? []), value]);
    if (as === "common") option.helpGroup("Common options:");
    if (as === "hidden") option.hideHelp();
    command.addOption(option);
  }
}

/** What was really given: commander says true for every `--no-x` that was not. */
function definedOptions(command: Command): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(command.opts()).filter(([name]) => command.getOptionValueSource(name) !== "default"),
  );
}

function groupOf(groups: Map<string, Command>, words: readonly string[], spec: CommandSpec): Command {
  const path = words.join(" ");
  const known = groups.get(path);
  if (known) return known;
  const parent = groupOf(groups, words.slice(0, -1), spec);
  const group = parent
    .command(words.at(-1) ?? "")
    .enablePositionalOptions()
    .helpGroup(`${spec.group}:`)
    .description(groupSummaries[path] ?? "");
  groups.set(path, group);
  return group;
}

const groupSummaries: Record<string, string> = {
  image: "build, import, pull, list and delete images",
  "key-pair": "public SSH keys that instances accept",
  project: "tenants with their own instances, images and quota",
  host: "the machines that run instances",
  network: "virtual networks: ranges of your own, seen as a drawing, traced packet by packet",
  subnet: "parts of a network's range",
  "route-table": "where packets of a subnet may go",
  "security-group": "who may talk to whom",
  address: "floating addresses, moved between instances",
  interface: "further network cards of instances",
  token: "secrets that open the HTTPS interface",
  daemon: "the background process of this machine",
};

function* allCommands(command: Command): Generator<Command> {
  yield command;
  for (const child of command.commands) yield* allCommands(child);
}

export function optionValues(values: Readonly<Record<string, unknown>>): OptionValues {
  const value = (name: string) =>
    values[name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
  const text = (name: string) => {
    const found = value(name);
    return typeof found === "string" ? found : undefined;
  };
  return {
    text,
    texts: (name) => {
      const found = value(name);
      return Array.isArray(found) ? found.filter(isString) : [];
    },
    flag: (name) => value(name) === true,
    off: (name) => value(name) === false,
    count: (name) => {
      const found = text(name);
      if (found === undefined) return undefined;
      if (!/^\d{1,9}$/.test(found)) {
        throw new StrataError("Invalid", `--${name} must be a whole number, not "${found}"`);
      }
      return Number(found);
    },
    mib: (name) => {
      const found = text(name);
      return found === undefined ? undefined : parseMib(found);
    },
  };
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}
