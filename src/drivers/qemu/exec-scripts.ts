/**
 * The shell scripts that connect a command in the guest to its ports. None holds data: tokens, names and the command
 * are positional arguments. They need sh, cat, sleep and setsid; with a terminal also script, sed, stty and tty.
 *
 * On the output port stand `TOKEN begin PID [TERMINAL]` before the command's output and `TOKEN end STATUS` after it, on
 * the errors' port `TOKEN end` after the errors.
 */

/** Opens the ports as descriptors 3, 4 and 5. They appear a moment after they were plugged in. */
const openPorts = `
port() {
  for each in /sys/class/virtio-ports/*; do
    [ "$(cat "$each/name" 2>/dev/null)" = "$name.$1" ] && echo "/dev/\${each##*/}" && return
  done
  return 1
}
tries=0
until in=$(port in) && out=$(port out) && err=$(port err) && [ -c "$in" ] && [ -c "$out" ] && [ -c "$err" ]; do
  tries=$((tries + 1)); [ "$tries" -lt 100 ] || exit 125
  sleep 0.1
done
exec 3<"$in" 4>"$out" 5>"$err" || exit 125`;

const sayStatus = `
status=$?
echo "$token end" >&5
echo "$token end $status" >&4`;

/** Arguments: TOKEN PORTS COMMAND... The inner shell is the command's own process, so its id is the command's. */
export const plainScript = `
token=$1 name=$2; shift 2
${openPorts}
setsid sh -c 'echo "$1 begin $$"; shift; exec "$@"' sh "$token" "$@" <&3 >&4 2>&5 3<&- 4>&- 5>&-
${sayStatus}`;

/**
 * Arguments: TOKEN PORTS COLUMNS ROWS COMMAND... `script` makes the terminal and takes one line for its shell, so the
 * words are quoted here. The inner shell survives the keys that interrupt the command, and says how that ended; what
 * `script` itself ends with only counts when it could not.
 */
export const terminalScript = `
token=$1 name=$2 columns=$3 rows=$4; shift 4
${openPorts}
line=
for word; do
  word=$(printf '%s.' "$word" | sed "s/'/'\\\\\\\\''/g")
  line="$line '\${word%.}'"
done
line="stty rows $rows columns $columns; echo $token begin \\$\\$ \\$(tty); trap : INT QUIT; $line; echo $token end \\$?"
SHELL=/bin/sh script -q -f -c "$line" /dev/null <&3 >&4 2>&4 3<&- 5>&-
${sayStatus}`;

/** Arguments: PID. */
export const killScript = `kill -s KILL -- "-$1"`;

/** Arguments: TERMINAL COLUMNS ROWS. */
export const resizeScript = `stty -F "$1" columns "$2" rows "$3"`;
