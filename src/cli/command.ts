/**
 * What a command is: data and one function. `program.ts` turns these into a parser, help and completion; the function
 * gets a Session and returns an Output, and neither parses arguments nor prints.
 */
import type { HttpClient } from "../client/http-client.ts";
import type { Clock } from "../core/clock.ts";
import type { Random } from "../core/random.ts";
import type { Output } from "./output.ts";
import type { Printer, Streams } from "./printer.ts";

export interface OptionSpec {
  /** As commander writes them: `-f, --follow` or `--memory <size>`. */
  flags: string;
  summary: string;
  choices?: readonly string[];
  repeatable?: boolean;
  default?: string;
}

/** Kinds whose names completion offers, by plural. */
export type CompletedKind =
  | "instances"
  | "groups"
  | "images"
  | "projects"
  | "hosts"
  | "networks"
  | "subnets"
  | "route-tables"
  | "peerings"
  | "security-groups"
  | "network-interfaces"
  | "volumes"
  | "snapshots"
  | "storage-pools"
  | "backups"
  | "backup-repositories"
  | "backup-schedules"
  | "addresses"
  | "load-balancers"
  | "certificates";

export interface ArgumentSpec {
  /** `<name>`, `[name]` or `[name...]`. */
  name: string;
  summary: string;
  choices?: readonly string[];
  /** What completion offers: names of resources of this kind, or files. */
  completes?: CompletedKind | "files";
}

export interface CommandSpec {
  /** Words of the command, such as `image build`. */
  path: string;
  group:
    | "Stacks"
    | "Instances"
    | "Groups"
    | "Networks"
    | "Volumes"
    | "Backups"
    | "Images and keys"
    | "Administration"
    | "Strata itself";
  summary: string;
  arguments?: readonly ArgumentSpec[];
  options?: readonly OptionSpec[];
  examples: readonly string[];
  /** Said when the arguments are wrong. */
  hint?: string;
  /** Not shown in help. */
  hidden?: boolean;
  /** Everything after the first argument belongs to another program. */
  passThrough?: boolean;
  run(call: Call): Promise<Output>;
}

/** Where the API is. */
export interface Target {
  socketPath: string;
  url?: string;
  token?: string;
  ca?: string;
}

/** A running command: what was typed and what it may use. */
export interface Call {
  /** All arguments, also those after `--`. */
  args: readonly string[];
  /** What followed `--`; empty without it. */
  rest: readonly string[];
  options: OptionValues;
  session: Session;
}

export interface Session {
  readonly printer: Printer;
  readonly clock: Clock;
  readonly random: Random;
  readonly streams: Streams;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** From -p, STRATA_PROJECT, or `default`. */
  readonly project: string;
  /** True when the person named the project. */
  readonly projectGiven: boolean;
  readonly target: Target;
  /** Wait until what was asked for has happened. */
  readonly wait: boolean;
  readonly timeoutMs: number;
  /** Aborts on Ctrl-C, with an Interrupted as its reason. */
  readonly signal: AbortSignal;
  readonly machine: Machine;
  /** Set by a command that leaves work going on: what Ctrl-C then says. */
  onInterrupt(message: string): void;
  /** The API. Does not start a daemon. */
  client(): Promise<HttpClient>;
  /** The API, after starting the daemon of this machine where there is none. */
  startedClient(): Promise<HttpClient>;
  /** `question` unless --yes. @throws Conflict when the answer is no. */
  confirm(question: string): Promise<void>;
}

export interface OptionValues {
  text(name: string): string | undefined;
  texts(name: string): readonly string[];
  flag(name: string): boolean;
  /** `--no-NAME` was given. */
  off(name: string): boolean;
  /** A whole number. @throws Invalid */
  count(name: string): number | undefined;
  /** A size such as 512MiB, in MiB. @throws Invalid */
  mib(name: string): number | undefined;
}

/** What only this machine can do, passed in by src/bin. Each prints its own progress through `printer`. */
export interface Machine {
  /** Makes sure that a daemon answers at the target, starting one (and installing what it needs) if it may. */
  ensureDaemon(session: Session): Promise<void>;
  daemon(
    verb: "run" | "start" | "stop" | "status" | "logs" | "restart",
    session: Session,
    options: OptionValues,
  ): Promise<Output>;
  doctor(session: Session, options: OptionValues): Promise<Output>;
  uninstall(session: Session, options: OptionValues): Promise<Output>;
  test(session: Session, args: readonly string[]): Promise<Output>;
  /** Runs a program in the foreground with this terminal; returns its exit status. */
  foreground(command: string, args: readonly string[]): Promise<number>;
  /** A new Ed25519 key in OpenSSH's forms. */
  makeSshKey(comment: string): Promise<{ publicKey: string; privateKey: string }>;
  readonly version: string;
}

/** What the process gives the command line. */
export interface CliContext {
  streams: Streams;
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  clock: Clock;
  random: Random;
  machine: Machine;
  defaultSocket: string;
  connect(target: Target): Promise<HttpClient>;
  /** Calls back on each Ctrl-C; the returned function ends that. */
  onInterrupt(callback: () => void): () => void;
  /** Ends the process at once. */
  exitNow(status: number): void;
}
