import type { AgentOptions } from "../agent/agent.ts";
import type { GuestDriver } from "../drivers/driver.ts";

/** What the agent needs of a host: the real one, or a pretended one. */
export type HostParts = Pick<AgentOptions, "images" | "disks" | "networks" | "measurements"> &
  Partial<
    Pick<
      AgentOptions,
      "backups" | "balancers" | "pools" | "connect" | "checks" | "machine" | "removeUnusedImages"
    >
  > & {
    drivers: readonly GuestDriver[];
    /** Ends what watches the host; guests and networks stay. */
    close(): void;
  };
