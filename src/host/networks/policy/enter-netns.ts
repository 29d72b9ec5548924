/** A long-lived program in a network namespace, or in the host's own; the kernel kills it with this process. */
export function enterNetns(
  netns: string | undefined,
  program: readonly string[],
): { command: string; args: string[] } {
  const inside = netns === undefined ? [] : ["nsenter", `--net=${netns}`, "--"];
  return { command: "setpriv", args: ["--pdeathsig", "KILL", "--", ...inside, ...program] };
}
