/**
 * The command line. A command (`commands/`) is data with one function that returns an Output; `program.ts` parses,
 * `printer.ts` draws, `explain.ts` turns errors into one line and a stable exit status. Nothing here knows how the API
 * or the daemon are made: `src/bin` passes them in. All it says to the daemon goes through the typed client, so it
 * works the same over the local socket and over HTTPS.
 */
import { readFile } from "node:fs/promises";
import { CommanderError } from "commander";
import type { HttpClient } from "../client/http-client.ts";
import { StrataError } from "../core/errors.ts";
import type { CliContext, CommandSpec, OptionValues, Session, Target } from "./command.ts";
import { commands } from "./commands/commands.ts";
import { exitInterrupted, exitUsage } from "./exit-codes.ts";
import { exitStatus, explain, Interrupted } from "./explain.ts";
import { Printer } from "./printer.ts";
import { buildProgram } from "./program.ts";

const defaultTimeoutSeconds = 1200;

/** Runs one command; `argv` without program name. Resolves to the exit status and never rejects. */
export async function runCli(argv: readonly string[], context: CliContext): Promise<number> {
  const { stdout, stderr } = context.streams;
  let status = 0;
  const program = buildProgram(
    commands,
    async (spec, args, options) => {
      status = await runCommand(spec, args, options, context, restOf(spec, argv, args));
    },
    { out: (text) => stdout.write(text), err: (text) => stderr.write(text) },
  );
  if (argv.length === 0) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync([...argv], { from: "user" });
    return status;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : exitUsage;
    stderr.write(`${explain(error, context.env.STRATA_DEBUG !== undefined)}\n`);
    return exitStatus(error);
  }
}

/** The arguments behind the first `--`, which commander does not tell from the others. */
function restOf(spec: CommandSpec, argv: readonly string[], args: readonly string[]): readonly string[] {
  const separator = argv.indexOf("--");
  return separator < 0 || spec.passThrough ? [] : args.slice(args.length - (argv.length - separator - 1));
}

async function runCommand(
  spec: CommandSpec,
  args: readonly string[],
  options: OptionValues,
  context: CliContext,
  rest: readonly string[],
): Promise<number> {
  const abort = new AbortController();
  const session = new CommandSession(context, options, abort.signal, await targetOf(context, options));
  const printer = session.printer;
  let interruptions = 0;
  const endInterrupts = context.onInterrupt(() => {
    if (++interruptions > 1) context.exitNow(exitInterrupted);
    abort.abort(new Interrupted(session.interruptMessage));
  });
  try {
    const output = await spec.run({ args, rest, options, session });
    printer.output(output);
    return "status" in output ? (output.status ?? 0) : 0;
  } catch (error) {
    const reason = abort.signal.aborted ? abort.signal.reason : error;
    printer.note(explain(reason, context.env.STRATA_DEBUG !== undefined));
    return exitStatus(reason);
  } finally {
    endInterrupts();
  }
}

async function targetOf(context: CliContext, options: OptionValues): Promise<Target> {
  const { env } = context;
  const url = options.text("url") ?? env.STRATA_URL;
  const read = async (path: string, what: string) =>
    await readFile(path, "utf8").catch((cause: unknown) => {
      throw new StrataError("Invalid", `cannot read the ${what} from ${path}`, { cause });
    });
  const tokenFile = options.text("token-file");
  const token = tokenFile === undefined ? env.STRATA_TOKEN : (await read(tokenFile, "token")).trim();
  const caFile = options.text("ca") ?? env.STRATA_CA;
  return {
    socketPath: options.text("socket") ?? context.defaultSocket,
    ...(url ? { url } : {}),
    ...(token ? { token } : {}),
    ...(caFile ? { ca: await read(caFile, "certificate") } : {}),
  };
}

class CommandSession implements Session {
  readonly printer: Printer;
  readonly project: string;
  readonly projectGiven: boolean;
  readonly target: Target;
  readonly wait: boolean;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  interruptMessage = "interrupted";
  readonly #context: CliContext;
  readonly #options: OptionValues;
  #client: Promise<HttpClient> | undefined;

  constructor(context: CliContext, options: OptionValues, signal: AbortSignal, target: Target) {
    const { env, streams } = context;
    this.#context = context;
    this.#options = options;
    this.target = target;
    this.signal = signal;
    const project = options.text("project") ?? env.STRATA_PROJECT;
    this.project = project ?? "default";
    this.projectGiven = project !== undefined;
    this.wait = !options.off("wait");
    this.timeoutMs = (options.count("timeout") ?? defaultTimeoutSeconds) * 1000;
    this.printer = new Printer(streams, context.clock, {
      json: options.flag("json"),
      color: streams.stdout.isTTY === true && !env.NO_COLOR && env.TERM !== "dumb" && !options.off("color"),
    });
  }

  get clock() {
    return this.#context.clock;
  }
  get random() {
    return this.#context.random;
  }
  get streams() {
    return this.#context.streams;
  }
  get env() {
    return this.#context.env;
  }
  get cwd() {
    return this.#context.cwd;
  }
  get machine() {
    return this.#context.machine;
  }

  onInterrupt(message: string): void {
    this.interruptMessage = message;
  }

  client(): Promise<HttpClient> {
    this.#client ??= this.#context.connect(this.target);
    return this.#client;
  }

  async startedClient(): Promise<HttpClient> {
    if (this.target.url === undefined) await this.machine.ensureDaemon(this);
    return await this.client();
  }

  async confirm(question: string): Promise<void> {
    if (this.#options.flag("yes")) return;
    if (!(await this.printer.confirm(question, this.signal))) {
      throw new StrataError("Conflict", "nothing was changed");
    }
  }
}
