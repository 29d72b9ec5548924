/** Completion for shells: three small scripts that ask `strata __complete`, which knows the commands and the daemon. */
import type { HttpClient } from "../client/http-client.ts";
import { findKind } from "../kinds/registry.ts";
import type { CommandSpec, OptionSpec } from "./command.ts";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** What a script offers instead of words: names of files. */
export const filesMark = ":files";

const scripts: Record<Shell, string> = {
  bash: `_strata() {
  local candidates
  mapfile -t candidates < <(strata __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  if [ "\${candidates[0]-}" = "${filesMark}" ]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}")
  else
    COMPREPLY=("\${candidates[@]}")
  fi
}
complete -F _strata strata
`,
  zsh: `#compdef strata
_strata() {
  local -a candidates
  candidates=("\${(@f)$(strata __complete -- "\${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)}")
  if [[ "\${candidates[1]}" == "${filesMark}" ]]; then _files; else compadd -- $candidates; fi
}
compdef _strata strata
`,
  fish: `function __strata_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l candidates (strata __complete -- $words[2..-1] 2>/dev/null)
  if test "$candidates[1]" = "${filesMark}"
    __fish_complete_path (commandline -ct)
  else
    printf '%s\\n' $candidates
  end
end
complete -c strata -f -a '(__strata_complete)'
`,
};

export function completionScript(shell: Shell): string {
  return scripts[shell];
}

/** What may stand for the last of `words`. Names are asked of the daemon; one that does not answer offers none. */
export async function complete(
  specs: readonly CommandSpec[],
  common: readonly OptionSpec[],
  words: readonly string[],
  project: string,
  client: () => Promise<HttpClient>,
): Promise<string[]> {
  const current = words.at(-1) ?? "";
  const before = words.slice(0, -1).filter((word) => !word.startsWith("-"));
  const spec = specs.find(({ path }) => `${before.join(" ")} `.startsWith(`${path} `));
  const fitting = (candidates: readonly string[]) =>
    [...new Set(candidates)].filter((candidate) => candidate.startsWith(current)).sort();
  if (!spec) {
    const depth = before.length;
    const possible = specs.filter(({ path }) =>
      before.every((word, index) => path.split(" ")[index] === word),
    );
    return fitting(possible.flatMap(({ path }) => path.split(" ")[depth] ?? []));
  }
  if (current.startsWith("-")) {
    return fitting(
      [...(spec.options ?? []), ...common].flatMap(({ flags }) => flags.match(/--[a-z-]+/g) ?? []),
    );
  }
  const known = spec.arguments ?? [];
  const position = before.length - spec.path.split(" ").length;
  const argument = known[position] ?? (known.at(-1)?.name.endsWith("...>") ? known.at(-1) : undefined);
  if (argument?.choices) return fitting(argument.choices);
  if (argument?.completes === undefined) return [];
  if (argument.completes === "files") return [filesMark];
  const kind = findKind(argument.completes);
  if (!kind) return [];
  try {
    const { items } = await (await client()).list(kind, kind.scope === "project" ? { project } : {});
    return fitting(items.map((item) => item.metadata.name));
  } catch {
    return [];
  }
}
