/**
 * Sockets that are bound here and inherited by QEMU while they listen. So QEMU needs no directory to make them in (one
 * that it could write to, and swap a socket for a link to another), and a client may connect before QEMU has started:
 * it is answered when QEMU is ready, and disconnected when QEMU fails.
 */
import { renameSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { assert, StrataError } from "../../core/errors.ts";

/** The kernel's limit on the path of a Unix socket. */
const maxPathBytes = 107;

export interface ListeningSocket {
  /** To be handed to a child process, before `close`. */
  readonly fd: number;
  /** Gives up our copy. The socket goes on as long as a child has it; its file stays. */
  close(): void;
}

/** Binds a socket, readable and writable by root only, replacing what was at the path. */
export async function listenAt(path: string): Promise<ListeningSocket> {
  const temporary = `${path}.new`;
  if (Buffer.byteLength(temporary) > maxPathBytes) {
    throw new StrataError(
      "Invalid",
      `the path ${path} is too long for a socket; choose a shorter run directory`,
    );
  }
  rmSync(temporary, { force: true });
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(temporary, resolve);
  });
  // Node removes the path that it has bound when it closes: it must be another one by then.
  renameSync(temporary, path);
  return { fd: descriptorOf(server), close: () => server.close() };
}

/** Not in Node's documentation, but what its own cluster module passes to workers. */
function descriptorOf(server: Server): number {
  const handle = (server as Server & { _handle?: { fd?: number } })._handle;
  assert(typeof handle?.fd === "number" && handle.fd >= 0, "a listening server has a descriptor");
  return handle.fd;
}
