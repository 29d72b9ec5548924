/**
 * GET of what a user names: connects to allowed addresses only, and to the very addresses that it has looked at, at each
 * redirect anew. So neither a name, nor a name that leads elsewhere the second time, nor a server that sends elsewhere
 * leads to what only this host can reach.
 */
import type { IncomingMessage } from "node:http";
import { request as requestHttps } from "node:https";
import type { LookupFunction } from "node:net";
import { StrataError } from "../../core/errors.ts";
import { parseIp } from "../../core/ip-range.ts";
import { request as requestHttp } from "../../core/node-http.ts";
import { allowedAddresses, type GuardOptions } from "./guarded-proxy.ts";

export interface GetOptions {
  headers: Readonly<Record<string, string>>;
  signal: AbortSignal;
  /** Where this URL may lead; undefined: anywhere, because the operator named it. */
  guard(url: string): GuardOptions | undefined;
}

const maxRedirects = 10;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The answer, once it is no redirect; its body is read, or destroyed, by the caller.
 * @throws Forbidden for an internal address; Invalid for redirects without end or to another protocol; and what Node.js throws.
 */
export async function guardedGet(url: string, options: GetOptions): Promise<IncomingMessage> {
  let next = url;
  for (let hops = 0; hops <= maxRedirects; hops++) {
    const answer = await ask(next, options);
    const { location } = answer.headers;
    if (!redirects.has(answer.statusCode ?? 0) || location === undefined) return answer;
    answer.destroy();
    const to = URL.parse(location, next);
    if (to?.protocol !== "http:" && to?.protocol !== "https:") {
      throw new StrataError("Invalid", `${new URL(url).host} sends on to what is no http or https address`);
    }
    next = to.href;
  }
  throw new StrataError("Invalid", `${new URL(url).host} sends on more than ${maxRedirects} times`);
}

async function ask(url: string, { headers, signal, guard }: GetOptions): Promise<IncomingMessage> {
  const { protocol, hostname } = new URL(url);
  const rules = guard(url);
  const literal = parseIp(hostname.replace(/^\[(.*)\]$/, "$1")) !== undefined;
  // For an address there is no look-up.
  if (rules && literal) await allowedAddresses(hostname, rules);
  const lookup = rules && !literal ? { lookup: lookupWithin(rules) } : {};
  const request = protocol === "https:" ? requestHttps : requestHttp;
  const answer = Promise.withResolvers<IncomingMessage>();
  request(url, { headers, signal, agent: false, ...lookup })
    .on("response", answer.resolve)
    .on("error", answer.reject)
    .end();
  return await answer.promise;
}

/** Gives a socket all addresses that it may try, and none else. */
function lookupWithin(rules: GuardOptions): LookupFunction {
  return (hostname, options, callback) => {
    allowedAddresses(hostname, rules).then(
      (found) => {
        const all = found.map((address) => ({ address, family: parseIp(address)?.family ?? 0 }));
        const [first] = all;
        if (options.all || !first) callback(null, all);
        else callback(null, first.address, first.family);
      },
      (error: Error) => callback(error, []),
    );
  };
}
