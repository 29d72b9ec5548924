import fc from "fast-check";
import { expect, test } from "vitest";
import { type ReceivedEvent, readEvents } from "./event-source.ts";

async function read(chunks: Iterable<Uint8Array>): Promise<(ReceivedEvent | undefined)[]> {
  async function* stream() {
    yield* chunks;
  }
  const events: (ReceivedEvent | undefined)[] = [];
  for await (const event of readEvents(stream())) events.push(event);
  return events;
}

test("events are the same however the stream is cut", async () => {
  const event = fc.record({
    event: fc.constantFrom("put", "delete"),
    id: fc.nat().map(String),
    data: fc.string({ unit: "binary", maxLength: 12 }).map((text) => JSON.stringify(text)),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 8 }),
      async (events, cuts) => {
        const text = events
          .map(({ event, id, data }) => `id: ${id}\nevent: ${event}\ndata: ${data}\n\n`)
          .join("");
        const bytes = Buffer.from(text);
        const at = [
          0,
          ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b),
          bytes.length,
        ];
        const chunks = at.slice(1).map((end, i) => bytes.subarray(at[i], end));
        expect(await read(chunks)).toEqual(events);
      },
    ),
  );
});

test("comments are signs of life, ids stay, several data lines are one text, and halves are no events", async () => {
  const text = ": open\n\nid: 4\r\nevent: put\ndata: 1\ndata:2\n\ndata: 3\n\nretry: 5\nevent\n\ndata: lost";
  expect(await read([Buffer.from(text)])).toEqual([
    undefined,
    { event: "put", data: "1\n2", id: "4" },
    { event: "message", data: "3", id: "4" },
  ]);
});

test("an event without end is given up on", async () => {
  const endless = Array.from({ length: 5 }, () => Buffer.alloc(1024 * 1024, "x"));
  await expect(read(endless)).rejects.toMatchObject({ code: "Internal" });
});
