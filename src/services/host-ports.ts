import type { FieldError } from "../core/errors.ts";
import type { Write } from "../store/store.ts";
import type { World } from "./hooks.ts";
import { conflict } from "./parse.ts";

/**
 * Ports of the hosts, each once in the whole cluster: a key each, `/allocations/ports/PROTOCOL/PORT`, with who has it.
 */

export interface HostPort {
  protocol: "tcp" | "udp";
  port: number;
}

/** Who takes a port. `what` is for messages, such as `published port`. */
export interface PortOwner {
  project: string;
  name: string;
  uid: string;
  what: string;
}

/**
 * For the commit of the owner. `reserved`: TCP ports that the host itself answers on. `path`: of the port in the spec.
 * @throws Conflict when somebody has it.
 */
export async function claimPort(
  hostPort: HostPort,
  owner: PortOwner,
  reserved: readonly number[],
  world: World,
  from: { path: string; action: string },
): Promise<Write> {
  const { protocol, port } = hostPort;
  const refuse = (why: string) => {
    const field: FieldError = {
      path: from.path,
      message: `is ${port}/${protocol}, which ${why}`,
      allowed: "a port that nobody has",
    };
    return conflict(from.action, field);
  };
  if (protocol === "tcp" && reserved.includes(port)) {
    throw refuse("this host itself answers on (SSH, Strata)");
  }
  const entry = await world.store.get(portKey(hostPort));
  if (entry) {
    const { project, name, what = "published port" } = entry.value as unknown as Partial<PortOwner>;
    // Whose it is concerns its own project only.
    throw refuse(project === owner.project ? `${what} "${name}" has already` : "another project has already");
  }
  return { put: portKey(hostPort), value: { ...owner }, ifRevision: 0 };
}

/** For the commit in which the owner gives it up. */
export function freePort(hostPort: HostPort): Write {
  return { delete: portKey(hostPort) };
}

function portKey({ protocol, port }: HostPort): string {
  return `/allocations/ports/${protocol}/${port}`;
}
