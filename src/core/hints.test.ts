import { expect, test } from "vitest";
import { Hints } from "./hints.ts";
import { settle } from "./virtual-clock.ts";

test("each reader gets the first keys, then what is hinted, each once until it is read", async () => {
  const hints = new Hints();
  const abort = new AbortController();
  const read: string[] = [];
  const reading = (async () => {
    for await (const key of hints.keys(abort.signal, ["a", "b"])) read.push(key);
  })();
  await settle();
  expect(read).toEqual(["a", "b"]);
  hints.hint("c");
  hints.hint("c");
  hints.hint("a");
  await settle();
  expect(read).toEqual(["a", "b", "c", "a"]);
  abort.abort();
  await reading;
});

test("a hint while the reader is busy is kept", async () => {
  const hints = new Hints();
  const abort = new AbortController();
  const keys = hints.keys(abort.signal, ["a"]);
  await keys.next();
  hints.hint("a");
  hints.hint("b");
  expect((await keys.next()).value).toBe("a");
  expect((await keys.next()).value).toBe("b");
  abort.abort();
  expect((await keys.next()).done).toBe(true);
});

test("an abort ends a waiting reader", async () => {
  const hints = new Hints();
  const abort = new AbortController();
  const next = hints.keys(abort.signal).next();
  abort.abort();
  expect((await next).done).toBe(true);
});
