/** The host's rules of iptables around a measurement: dockerd adds its own, drops what others forward, and leaves both. */
import { run } from "../../src/host/run.ts";

/** Resolves to what puts them back as they are now. */
export async function keepFirewall(): Promise<() => Promise<void>> {
  const before = await tables();
  const rules = (await run("iptables-save", [])).stdout;
  return async () => {
    // Where there was no rule at all, there is nothing that could be restored.
    for (const table of await tables()) {
      if (!before.includes(table)) await run("nft", ["delete", "table", "ip", table]);
    }
    if (rules !== "") await run("iptables-restore", [], { input: rules });
  };
}

/** Those of iptables, by name. */
async function tables(): Promise<string[]> {
  const { stdout } = await run("nft", ["list", "tables", "ip"]);
  return [...stdout.matchAll(/^table ip (filter|nat|mangle|raw|security)$/gm)].map(([, name = ""]) => name);
}
