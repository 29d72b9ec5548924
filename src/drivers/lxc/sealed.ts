/**
 * Commands that start without any descriptor but the standard three. Node opens its files close-on-exec, but native
 * modules and whoever started the daemon do not always: the masters of terminals of other sessions, for instance. What
 * lxc-attach inherits is open inside the container, and an open directory of the host is a way out of it.
 */
import { readdirSync, readFileSync } from "node:fs";

/** In bash, because plain shells know no descriptors above 9. The command comes as arguments. */
const script = `for fd in /proc/self/fd/*; do
  fd=\${fd##*/}
  if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
done
exec "$@"`;

/** O_CLOEXEC in /proc/PID/fdinfo, which prints octal. */
const closeOnExec = 0o2000000;

/** An absolute program with its arguments, and the bash that can seal it. */
export interface HostCommand {
  bash: string;
  file: string;
  args: readonly string[];
}

/** What to start, at once: nothing else may run between this call and the start. */
export function sealed({ bash, file, args }: HostCommand): { file: string; args: string[] } {
  if (!hasInheritable()) return { file, args: [...args] };
  // Bash reads ~/.bashrc when its input is a socket, which it always is here, unless told not to.
  return { file: bash, args: ["--norc", "--noprofile", "-p", "-c", script, "strata-sealed", file, ...args] };
}

function hasInheritable(): boolean {
  return readdirSync("/proc/self/fd").some((fd) => {
    if (Number(fd) <= 2) return false;
    try {
      const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1];
      return flags === undefined || (Number.parseInt(flags, 8) & closeOnExec) === 0;
    } catch {
      return false; // the listing's own, closed since
    }
  });
}
