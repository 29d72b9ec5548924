/**
 * Commands that start without any descriptor but the standard three. Node opens its files close-on-exec, but native
 * modules and whoever started the daemon do not always: the masters of terminals of other sessions, for instance. What
 * lxc-attach inherits is open inside the container, and an open directory of the host is a way out of it.
 *
 * In bash, because plain shells know no descriptors above 9. The script is constant; the command comes as arguments.
 */
const script = `for fd in /proc/self/fd/*; do
  fd=\${fd##*/}
  if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
done
exec "$@"`;

/** Wraps an absolute command. */
export function sealed(
  bash: string,
  file: string,
  args: readonly string[],
): { file: string; args: string[] } {
  // Bash reads ~/.bashrc when its input is a socket, which it always is here, unless told not to.
  return { file: bash, args: ["--norc", "--noprofile", "-p", "-c", script, "strata-sealed", file, ...args] };
}
