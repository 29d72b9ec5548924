/**
 * Node's `http`, to be taken from here instead of `import ... from "node:http"`: importing that as an ECMAScript module reads
 * all that it exports, among it the WebSocket of browsers, and thereby loads a whole second HTTP client (undici), which
 * costs 10 MiB in a process that does nothing else. Types may come from `node:http`: they load nothing.
 */
export const { Agent, STATUS_CODES, createServer, request } = process.getBuiltinModule("node:http");
