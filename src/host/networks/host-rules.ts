/**
 * The host's part of the firewall, one for all networks of a daemon: its own table, and the rules that let its uplinks
 * pass the firewalls of others.
 */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import { run } from "../run.ts";
import {
  type ForwardChain,
  findForwardChains,
  hasTable,
  parseRules,
  renderAcceptance,
  renderWithdrawal,
} from "./forward-chains.ts";
import { renderHostRules, renderHostRulesRemoval } from "./host-table.ts";
import { hostTable, uplinkPrefix } from "./network-plan.ts";

export interface HostRulesOptions {
  namespace: string;
  clock: Clock;
  logger: Logger;
  /** How long what was seen is believed, in milliseconds: many networks are looked at one after the other. */
  recheckMs: number;
}

const legacyTablesFile = "/proc/net/ip_tables_names";
const nftTimeoutMs = 10_000;

export class HostRules {
  readonly #options: HostRulesOptions;
  readonly #table: string;
  readonly #uplinks: string;
  /** Our table as the kernel listed it just after it was made. */
  #asMade: string | undefined;
  #checkedAtMs: number | undefined;
  readonly #complaints = new Set<string>();

  constructor(options: HostRulesOptions) {
    this.#options = options;
    this.#table = hostTable(options.namespace);
    this.#uplinks = uplinkPrefix(options.namespace);
  }

  /** Makes or mends both parts. Calls must not overlap. */
  async ensure(signal: AbortSignal): Promise<void> {
    const { clock, recheckMs } = this.#options;
    if (this.#checkedAtMs !== undefined && clock.monotonicMs() - this.#checkedAtMs < recheckMs) return;
    this.#checkedAtMs = undefined;
    const listing = await nft(["-j", "list", "chains"], signal);
    await this.#ensureTable(hasTable(listing, "inet", this.#table), signal);
    for (const chain of findForwardChains(listing, this.#table)) {
      await this.#tryToPass(`${chain.family} ${chain.table} ${chain.name}`, async () => {
        const text = renderAcceptance(chain, await listRules(chain, signal), `${this.#uplinks}*`);
        if (text !== "") await apply(text, signal);
      });
    }
    if (await hasLegacyFilter()) {
      await this.#tryToPass("iptables-legacy FORWARD", () => this.#passLegacy(signal));
    }
    this.#checkedAtMs = clock.monotonicMs();
  }

  /** Takes everything back; absent is success. Calls must not overlap. */
  async remove(signal: AbortSignal): Promise<void> {
    this.#asMade = undefined;
    this.#checkedAtMs = undefined;
    const listing = await nft(["-j", "list", "chains"], signal);
    if (hasTable(listing, "inet", this.#table)) {
      await apply(renderHostRulesRemoval(this.#options.namespace), signal);
    }
    for (const chain of findForwardChains(listing, this.#table)) await this.#withdraw(chain, signal);
    if (await hasLegacyFilter()) {
      for (const direction of ["-i", "-o"]) {
        while (await this.#legacyHas(direction, signal)) await this.#legacy("-D", direction, signal);
      }
    }
  }

  /** Firewalls of others come and go, and our rules with them. */
  async #withdraw(chain: ForwardChain, signal: AbortSignal): Promise<void> {
    try {
      const text = renderWithdrawal(chain, await listRules(chain, signal), `${this.#uplinks}*`);
      if (text !== "") await apply(text, signal);
    } catch (cause) {
      signal.throwIfAborted();
      const chains = findForwardChains(await nft(["-j", "list", "chains"], signal), this.#table);
      const there = chains.some(
        ({ family, table, name }) => family === chain.family && table === chain.table && name === chain.name,
      );
      if (there) throw cause;
    }
  }

  async #ensureTable(there: boolean, signal: AbortSignal): Promise<void> {
    const list = () => nft(["-s", "list", "table", "inet", this.#table], signal);
    if (there && this.#asMade !== undefined && (await list()) === this.#asMade) return;
    await apply(renderHostRules(this.#options.namespace), signal);
    this.#asMade = await list();
  }

  /** Somebody else's firewall that cannot be changed takes the guests' way out, not the network itself. */
  async #tryToPass(firewall: string, task: () => Promise<void>): Promise<void> {
    try {
      await task();
      this.#complaints.delete(firewall);
    } catch (cause) {
      if (this.#complaints.has(firewall)) return;
      this.#complaints.add(firewall);
      this.#options.logger.warn(
        { firewall, cause: describeError(cause) },
        `guests may not reach the outside: the firewall chain ${firewall} drops what it does not know, and no rule for ${this.#uplinks}* could be added`,
      );
    }
  }

  async #passLegacy(signal: AbortSignal): Promise<void> {
    const { stdout } = await run("iptables-legacy", ["-w", "5", "-S", "FORWARD"], { signal });
    if (!/^-P FORWARD DROP$|^-A FORWARD -j (?:DROP|REJECT)/m.test(stdout)) return;
    for (const direction of ["-o", "-i"]) {
      if (!(await this.#legacyHas(direction, signal))) await this.#legacy("-I", direction, signal);
    }
  }

  async #legacyHas(direction: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#legacy("-C", direction, signal, [0, 1])) === 0;
  }

  async #legacy(verb: string, direction: string, signal: AbortSignal, expected = [0]): Promise<number> {
    const rule = [verb, "FORWARD", direction, `${this.#uplinks}+`, "-j", "ACCEPT"];
    return (await run("iptables-legacy", ["-w", "5", ...rule], { signal, expected })).status;
  }
}

async function listRules(chain: ForwardChain, signal: AbortSignal) {
  return parseRules(await nft(["-j", "list", "chain", chain.family, chain.table, chain.name], signal), chain);
}

async function nft(args: string[], signal: AbortSignal): Promise<string> {
  return (await run("nft", args, { signal, timeoutMs: nftTimeoutMs })).stdout;
}

async function apply(text: string, signal: AbortSignal): Promise<void> {
  await run("nft", ["-f", "-"], { input: text, signal, timeoutMs: nftTimeoutMs });
}

/** Whether the older form of iptables, which nft does not see, has rules here. */
async function hasLegacyFilter(): Promise<boolean> {
  return (await readFile(legacyTablesFile, "utf8").catch(() => "")).split("\n").includes("filter");
}
