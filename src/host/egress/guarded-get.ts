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
  /** Where it may lead; undefined: anywhere, because the operator named it. */
  guard: GuardOptions | undefined;
}

const maxRedirects = 10;
const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * The answer, once it is no redirect; its body is read, or destroyed, by the caller.
 * @throws Forbidden for an internal address; Invalid for redirects without end or to another protocol, and for credentials;
 * Unavailable; and what Node.js throws.
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

async function ask(url: string, { headers, signal, guard: rules }: GetOptions): Promise<IncomingMessage> {
  const { protocol, hostname, host, username, password } = new URL(url);
  if (username !== "" || password !== "") {
    throw new StrataError("Invalid", `${host} is named with a user or a password, which is not sent`);
  }
  const literal = parseIp(hostname.replace(/^\[(.*)\]$/, "$1")) !== undefined;
  // For an address there is no look-up.
  if (rules && literal) await allowedAddresses(hostname, rules);
  const lookup = rules && !literal ? { lookup: lookupWithin(rules) } : {};
  const request = protocol === "https:" ? requestHttps : requestHttp;
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const ended = (why: string) => reject(new StrataError("Unavailable", `the server ${host} ${why}`));
  request(url, { headers, signal, agent: false, ...lookup })
    .on("response", resolve)
    .on("error", reject)
    // Without these, an answer of 101 would be the end of the request, and nobody would be told.
    .on("upgrade", (_answer, socket) => {
      socket.destroy();
      ended("answers in another protocol");
    })
    .on("close", () => ended("ended the connection early"))
    .end();
  return await promise;
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
