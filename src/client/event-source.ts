import { StrataError } from "../core/errors.ts";

export interface ReceivedEvent {
  event: string;
  data: string;
  /** The last id seen so far, also of earlier events. */
  id: string | undefined;
}

/** Of one event; nothing that is sent is larger. */
const maxEventBytes = 4 * 1024 * 1024;

/**
 * Reads server-sent events (WHATWG HTML, 9.2.6). Comments come out as undefined, as a sign of life.
 * @throws Internal for an event that is too large.
 */
export async function* readEvents(
  stream: AsyncIterable<Uint8Array>,
): AsyncGenerator<ReceivedEvent | undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  let event = "message";
  let data: string[] = [];
  let id: string | undefined;
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > maxEventBytes) throw new StrataError("Internal", "an event of the stream is too large");
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const { name, value } = parseLine(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (name === "event") event = value;
      else if (name === "data") data.push(value);
      else if (name === "id") id = value;
      else if (name === "comment") yield undefined;
      if (name !== "end") continue;
      if (data.length > 0) yield { event, data: data.join("\n"), id };
      event = "message";
      data = [];
    }
  }
}

function parseLine(line: string): { name: string; value: string } {
  if (line === "") return { name: "end", value: "" };
  if (line.startsWith(":")) return { name: "comment", value: "" };
  const at = line.indexOf(":");
  if (at < 0) return { name: line, value: "" };
  const value = line.slice(at + 1);
  return { name: line.slice(0, at), value: value.startsWith(" ") ? value.slice(1) : value };
}
