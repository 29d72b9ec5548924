/** Which signal asks a container's init to shut down: the first of these that it handles. */
const shutdownSignals = [
  /** SIGRTMIN+3: systemd halts. */
  37,
  /** SIGPWR: sysvinit, busybox init and most others. */
  30,
  /** SIGTERM: a program of the user's own as init. */
  15,
];

/**
 * Chooses from a process's /proc/PID/status. Signals that are blocked count as handled, because systemd and busybox
 * receive theirs through signalfd and sigtimedwait. Undefined when none is handled (yet): the kernel drops signals
 * that an init does not handle.
 */
export function shutdownSignal(status: string): number | undefined {
  const handled = mask(status, "SigCgt") | mask(status, "SigBlk");
  return shutdownSignals.find((signal) => (handled >> BigInt(signal - 1)) & 1n);
}

function mask(status: string, name: string): bigint {
  const hex = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status)?.[1];
  return hex === undefined ? 0n : BigInt(`0x${hex}`);
}
