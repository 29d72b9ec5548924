/** A strict reader of Prometheus' text format 0.0.4, as its documentation has it. For tests. */
export interface ReadSample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

const metricName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const labelName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const types = ["counter", "gauge", "histogram", "summary", "untyped"];
const number = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|NaN|[+-]Inf)$/;

/** @throws with the line, for anything that the format does not allow. */
export function readExposition(text: string): ReadSample[] {
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line does not end with a line feed");
  const samples: ReadSample[] = [];
  const typed = new Set<string>();
  const helped = new Set<string>();
  const finished = new Set<string>();
  const seen = new Set<string>();
  let current = "";
  for (const line of text.split("\n").slice(0, -1)) {
    const fail = (why: string) => new Error(`${why}: ${line}`);
    const comment = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line);
    const sample = comment ? undefined : readSample(line, fail);
    const name = comment?.[2] ?? sample?.name ?? "";
    if (!metricName.test(name)) throw fail("no name of a metric");
    if (name !== current) {
      if (finished.has(name)) throw fail("the lines of a metric are not together");
      finished.add(current);
      current = name;
    }
    if (comment?.[1] === "HELP") {
      if (helped.has(name)) throw fail("a second HELP");
      if (!/^(?:[^\\]|\\[\\n])*$/.test(comment[3] ?? "")) throw fail("a wrong escape");
      helped.add(name);
    } else if (comment) {
      if (typed.has(name)) throw fail("a second TYPE");
      if (!types.includes(comment[3] ?? "")) throw fail("no type");
      if (samples.some((one) => one.name === name)) throw fail("TYPE after samples");
      typed.add(name);
    }
    if (!sample) continue;
    if (!typed.has(name)) throw fail("a sample without a TYPE");
    const key = JSON.stringify([name, Object.entries(sample.labels).sort()]);
    if (seen.has(key)) throw fail("a second sample of the same labels");
    seen.add(key);
    samples.push(sample);
  }
  return samples;
}

function readSample(line: string, fail: (why: string) => Error): ReadSample {
  const match = /^([^\s{]+)(\{.*\})? (\S+)$/.exec(line);
  if (!match) throw fail("no sample");
  const [, name = "", labels = "", value = ""] = match;
  if (!number.test(value)) throw fail("no number");
  return { name, labels: readLabels(labels, fail), value: Number(value.replace("Inf", "Infinity")) };
}

function readLabels(text: string, fail: (why: string) => Error): Record<string, string> {
  const labels: Record<string, string> = {};
  if (text === "") return labels;
  let rest = text.slice(1, -1);
  while (rest !== "") {
    const match = /^([^=]+)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/.exec(rest);
    if (!match) throw fail("wrong labels");
    const [whole, name = "", value = ""] = match;
    if (!labelName.test(name) || name.startsWith("__")) throw fail("no name of a label");
    if (Object.hasOwn(labels, name)) throw fail("a label twice");
    labels[name] = value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
    rest = rest.slice(whole.length);
  }
  return labels;
}
