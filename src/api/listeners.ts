import { chmod, mkdtemp, rename, rm, stat } from "node:fs/promises";
import { connect, type Server } from "node:net";
import { dirname, join } from "node:path";
import { StrataError } from "../core/errors.ts";

/** Longest path that fits struct sockaddr_un (unix(7)), and room for the directory it is made in. */
const maxSocketPath = 90;

/**
 * Listens on a Unix socket that only its owner may open. It is made in a directory that nobody else can enter and then
 * moved into place, so there is no moment at which others could connect; a socket left by a dead process is replaced.
 * Returns what removes it.
 * @throws Conflict when a process listens there already; Invalid for a path that is too long.
 */
export async function listenOnPath(server: Server, path: string): Promise<() => Promise<void>> {
  if (Buffer.byteLength(path) > maxSocketPath) {
    throw new StrataError(
      "Invalid",
      `cannot listen on ${path}: a socket's path may have at most ${maxSocketPath} bytes; choose a shorter one`,
    );
  }
  if (await answers(path)) {
    throw new StrataError("Conflict", `cannot listen on ${path}: a daemon is running there; stop it first`);
  }
  const nursery = await mkdtemp(join(dirname(path), ".s"));
  const made = join(nursery, "s");
  try {
    await listen(server, { path: made });
    await chmod(made, 0o600);
    await rename(made, path);
  } finally {
    await rm(nursery, { recursive: true, force: true });
  }
  const { ino } = await stat(path);
  return async () => {
    // Another daemon may have put its own there meanwhile.
    const there = await stat(path).catch(() => undefined);
    if (there?.ino === ino) await rm(path, { force: true });
  };
}

export function listen(
  server: Server,
  where: { path: string } | { host: string; port: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const shown = "path" in where ? where.path : `${where.host}:${where.port}`;
      reject(new StrataError("Unavailable", `cannot listen on ${shown}: ${cause.message}`, { cause }));
    });
    server.listen(where, () => {
      server.removeAllListeners("error");
      resolve();
    });
  });
}

/** Does a process accept connections there? */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
