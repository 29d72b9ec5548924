/** Strata itself: the daemon of this machine, doctor, tests, version, uninstalling. */
import type { CommandSpec } from "../command.ts";
import { commonOptions } from "../common-options.ts";
import { complete, completionScript, type Shell, shells } from "../completion.ts";

const daemonVerbs = {
  run: "Run the daemon in the foreground, logging to standard error",
  start: "Start the daemon in the background (a systemd unit where there is systemd)",
  stop: "Stop the daemon; instances keep running",
  restart: "Stop and start the daemon; instances keep running",
  status: "Say whether the daemon runs, and where it keeps its things",
  logs: "Show the daemon's log",
} as const;

const daemonCommands = Object.entries(daemonVerbs).map(
  ([verb, summary]): CommandSpec => ({
    path: `daemon ${verb}`,
    group: "Strata itself",
    summary,
    options:
      verb === "logs" ? [{ flags: "-f, --follow", summary: "go on with what comes" }] : settingOptions(verb),
    examples: [`sudo strata daemon ${verb}`],
    run: ({ session, options }) => session.machine.daemon(verb as keyof typeof daemonVerbs, session, options),
  }),
);

/** Where a daemon keeps its things; several run side by side when these differ. */
function settingOptions(verb: string) {
  return [
    { flags: "--dir <directory>", summary: "keep all of it below this directory (STRATA_DIR)" },
    { flags: "--state-dir <directory>", summary: "state (STRATA_STATE_DIR; /var/lib/strata)" },
    { flags: "--run-dir <directory>", summary: "sockets (STRATA_RUN_DIR; /run/strata)" },
    { flags: "--image-dir <directory>", summary: "images (STRATA_IMAGE_DIR; STATE/images)" },
    {
      flags: "--namespace <name>",
      summary: "prefix of what it makes on this machine (STRATA_NAMESPACE; strata)",
    },
    { flags: "--network-pool <range>", summary: "ranges of networks come from here (STRATA_NETWORK_POOL)" },
    { flags: "--id-base <number>", summary: "first shifted user id (STRATA_ID_BASE)" },
    {
      flags: "--https-port <port>",
      summary: "port of the HTTPS interface on loopback, 0 for any (STRATA_HTTPS_PORT; 7443)",
    },
    {
      flags: "--log-level <level>",
      summary: "debug, info, warn or error",
      choices: ["debug", "info", "warn", "error"],
    },
    ...(verb === "run" || verb === "start" || verb === "restart"
      ? [
          {
            flags: "--fake",
            summary: "pretend: guests without substance, state gone with it, no root needed",
          },
        ]
      : []),
  ];
}

/** The list of all commands is made of this one too, so it is asked for when it is needed. */
async function allCommands(): Promise<readonly CommandSpec[]> {
  return (await import("./commands.ts")).commands;
}

const completionCommands: readonly CommandSpec[] = [
  {
    path: "completion",
    group: "Strata itself",
    summary: "Print the completion script of a shell",
    arguments: [{ name: "<shell>", summary: "bash, zsh or fish", choices: shells }],
    examples: [
      "source <(strata completion bash)",
      "strata completion fish > ~/.config/fish/completions/strata.fish",
    ],
    run: async ({ session, args }) => {
      session.streams.stdout.write(completionScript(args[0] as Shell));
      return { type: "done" };
    },
  },
  {
    path: "__complete",
    group: "Strata itself",
    summary: "For the completion scripts",
    arguments: [{ name: "[word...]", summary: "what is typed so far" }],
    examples: [],
    passThrough: true,
    hidden: true,
    run: async ({ session, args }) => {
      const specs = (await allCommands()).filter((spec) => !spec.hidden);
      const words = await complete(specs, commonOptions, args, session.project, () => session.client());
      session.streams.stdout.write(words.map((word) => `${word}\n`).join(""));
      return { type: "done" };
    },
  },
];

export const systemCommands: readonly CommandSpec[] = [
  ...daemonCommands,
  ...completionCommands,
  {
    path: "doctor",
    group: "Strata itself",
    summary: "Find out what this machine can do, and say what to do about what it cannot",
    examples: ["sudo strata doctor", "strata doctor --json"],
    run: ({ session, options }) => session.machine.doctor(session, options),
  },
  {
    path: "test",
    group: "Strata itself",
    summary: "Install what is missing and run every test",
    arguments: [{ name: "[filter...]", summary: "only these test files" }],
    examples: ["sudo strata test"],
    run: ({ session, args }) => session.machine.test(session, args),
  },
  {
    path: "uninstall",
    group: "Strata itself",
    summary: "Remove all that Strata put on this machine",
    options: [
      { flags: "--force", summary: "delete instances as well" },
      { flags: "--keep-packages", summary: "leave the Debian packages that it installed" },
    ],
    examples: ["sudo strata uninstall", "sudo strata uninstall --force --yes"],
    run: ({ session, options }) => session.machine.uninstall(session, options),
  },
  {
    path: "version",
    group: "Strata itself",
    summary: "Show the versions of this program and of the daemon",
    examples: ["strata version"],
    run: async ({ session }) => {
      const daemon = await session
        .client()
        .then((client) => client.version({ signal: session.signal }))
        .catch(() => undefined);
      const own = session.machine.version;
      return {
        type: "message",
        text: `strata ${own}${daemon ? `, daemon ${daemon.version}, API ${daemon.apiVersion}` : ", no daemon answers"}`,
        json: { version: own, daemon: daemon ?? null },
      };
    },
  },
];
