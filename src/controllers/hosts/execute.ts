import type { ControllerContext } from "../context.ts";
import type { HostAction } from "./plan.ts";

/** @throws Conflict when the host was written meanwhile. */
export async function executeHostAction(
  { caches, logger }: ControllerContext,
  { host, status }: HostAction,
): Promise<void> {
  await caches.hosts.replace(host, { ...host, status });
  const { name } = host.metadata;
  if (status.state === "ready") logger.info({ host: name }, "a host is ready again");
  else logger.warn({ host: name, message: status.message }, "a host is not ready any more");
}
