/**
 * What the metadata service answers to one request. Pure but for the tokens' clock. The rules are EC2's, and stricter in
 * one thing: EC2 refuses forwarded requests for a token only, here they are refused altogether.
 *
 * @see https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
 */
import type { IncomingHttpHeaders } from "node:http";
import type { InstanceFacts } from "./instance-facts.ts";
import { findNode, isDirectory, listingOf, metadataTree } from "./metadata-tree.ts";
import { type SessionTokens, tokenTtlSeconds } from "./session-tokens.ts";

export interface Question {
  method: string;
  /** As in the request line. */
  target: string;
  headers: IncomingHttpHeaders;
}

export interface Answer {
  status: 200 | 400 | 401 | 403 | 404 | 405 | 413 | 503;
  headers: Readonly<Record<string, string>>;
  body: string | Uint8Array;
  /** True: nothing further is read from this connection. */
  last?: boolean;
}

/** The dates of EC2's formats. Clients ask for the one they know; all have the same content here. */
const versions = [
  "1.0",
  "2007-01-19",
  "2007-03-01",
  "2007-08-29",
  "2007-10-10",
  "2007-12-15",
  "2008-02-01",
  "2008-09-01",
  "2009-04-04",
  "2011-01-01",
  "2011-05-01",
  "2012-01-12",
  "2014-02-25",
  "2014-11-05",
  "2015-10-20",
  "2016-04-19",
  "2016-06-30",
  "2016-09-02",
  "2018-03-28",
  "2018-08-17",
  "2018-09-24",
  "2019-10-01",
  "2020-08-24",
  "2020-10-27",
  "2021-01-03",
  "2021-03-23",
  "latest",
];
const knownVersions = new Set(versions);

const tokenHeader = "x-aws-ec2-metadata-token";
const ttlHeader = `${tokenHeader}-ttl-seconds`;
/** No request has a body; some clients send an empty one. */
const maxBodyBytes = 1024;
const maxTargetCharacters = 2048;

export function answerQuestion(question: Question, facts: InstanceFacts, tokens: SessionTokens): Answer {
  const { method, headers } = question;
  if (hasBody(headers)) return { ...failure(413), last: true };
  if (!facts.access.enabled || isForwarded(headers)) return failure(403);
  const names = namesOf(question.target);
  if (!names) return failure(400);
  if (names.length === 3 && names[0] === "latest" && names[1] === "api" && names[2] === "token") {
    return method === "PUT" ? newToken(headers, facts, tokens) : failure(405, { allow: "PUT" });
  }
  if (method !== "GET" && method !== "HEAD") return failure(405, { allow: "GET, HEAD" });
  const token = headers[tokenHeader];
  if (token === undefined) {
    return facts.access.tokens === "optional" ? lookUp(names, facts, {}) : failure(401);
  }
  const left = typeof token === "string" ? tokens.secondsLeft(facts.uid, token) : undefined;
  return left === undefined ? failure(401) : lookUp(names, facts, { [ttlHeader]: `${left}` });
}

/** With a page that says so, as EC2 has it. */
export function failure(status: keyof typeof titles, headers: Record<string, string> = {}): Answer {
  const title = `${status} - ${titles[status]}`;
  const body = `<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>${title}</title>
 </head>
 <body>
  <h1>${title}</h1>
 </body>
</html>
`;
  return { status, headers: { "content-type": "text/html", ...headers }, body };
}

const titles = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  503: "Service Unavailable",
} as const satisfies Record<Exclude<Answer["status"], 200>, string>;

function newToken(headers: IncomingHttpHeaders, facts: InstanceFacts, tokens: SessionTokens): Answer {
  const text = headers[ttlHeader];
  const seconds = typeof text === "string" && /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (seconds < tokenTtlSeconds.min || seconds > tokenTtlSeconds.max) return failure(400);
  return {
    status: 200,
    headers: { "content-type": "text/plain", [ttlHeader]: `${seconds}` },
    body: tokens.issue(facts.uid, seconds),
  };
}

function lookUp(names: readonly string[], facts: InstanceFacts, headers: Record<string, string>): Answer {
  const [version, ...rest] = names;
  const plain = { "content-type": "text/plain", ...headers };
  if (version === undefined) return { status: 200, headers: plain, body: versions.join("\n") };
  const node = knownVersions.has(version) ? findNode(metadataTree(facts), rest) : undefined;
  if (node === undefined) return failure(404);
  if (typeof node === "string") return { status: 200, headers: plain, body: node };
  if (isDirectory(node)) return { status: 200, headers: plain, body: listingOf(node) };
  return { status: 200, headers: { ...headers, "content-type": "application/octet-stream" }, body: node };
}

/** The path's parts; empty ones do not count. Undefined for what is no path. */
function namesOf(target: string): string[] | undefined {
  // A request to a proxy names the whole URL.
  const [path = ""] = target.replace(/^https?:\/\/[^/?#]*(?=[/?#]|$)/i, "").split(/[?#]/, 1);
  if (target.length > maxTargetCharacters || (path !== "" && !path.startsWith("/"))) return undefined;
  try {
    return path
      .split("/")
      .filter((part) => part !== "")
      .map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

/** Somebody passes on what comes from elsewhere, as a web server inside of the guest that can be talked into it. */
function isForwarded(headers: IncomingHttpHeaders): boolean {
  return Object.keys(headers).some((name) => name === "forwarded" || name.startsWith("x-forwarded-"));
}

function hasBody(headers: IncomingHttpHeaders): boolean {
  const length = headers["content-length"];
  return headers["transfer-encoding"] !== undefined || Number(length ?? 0) > maxBodyBytes;
}
