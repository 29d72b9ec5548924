import type { OptionSpec } from "./command.ts";

/** Every command has these. */
export const commonOptions: readonly OptionSpec[] = [
  { flags: "--json", summary: "print JSON in the form of the API's resources" },
  { flags: "-p, --project <name>", summary: "project to work in (STRATA_PROJECT; default)" },
  { flags: "-y, --yes", summary: "do not ask before destroying" },
  { flags: "--wait", summary: "wait until it has happened (the default)" },
  { flags: "--no-wait", summary: "return as soon as the request is stored" },
  { flags: "--timeout <seconds>", summary: "how long to wait at most (default: 1200)" },
  { flags: "--socket <path>", summary: "the daemon's socket (STRATA_SOCKET)" },
  { flags: "--url <url>", summary: "HTTPS address of a daemon (STRATA_URL; token in STRATA_TOKEN)" },
  { flags: "--ca <file>", summary: "certificate of that daemon (STRATA_CA)" },
  { flags: "--token-file <file>", summary: "file with the token (or STRATA_TOKEN)" },
  { flags: "--no-color", summary: "no colours (NO_COLOR)" },
];
