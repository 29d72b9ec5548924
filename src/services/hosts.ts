import { StrataError } from "../core/errors.ts";
import type { Host } from "../kinds/host.ts";
import { instanceKind } from "../kinds/instance.ts";
import { promisesKey } from "../kinds/keys.ts";
import type { KindHooks } from "./hooks.ts";

/** `changed` is called after every write of a host in this process. */
export function hostHooks(changed: () => void): KindHooks<Host["spec"], Host["status"]> {
  return {
    async checkDelete(host, world) {
      const { name } = host.metadata;
      for await (const instance of world.scan(instanceKind, undefined)) {
        if (instance.status.host !== name) continue;
        const { project, name: instanceName } = instance.metadata;
        throw new StrataError(
          "Conflict",
          `cannot delete host "${name}": instance "${instanceName}" of project "${project}" is on it; ` +
            "cordon the host and delete its instances first",
        );
      }
    },
    removal: async (host) => [{ delete: promisesKey(host.metadata.name) }],
    committed: changed,
  };
}
