import { expect, test } from "vitest";
import { metricsOfKinds } from "../kinds/metric-names.ts";
import type { Sample } from "../metrics/metric-store.ts";
import { familiesOf, renderExposition } from "./exposition.ts";
import { readExposition } from "./testing-exposition.ts";

const uid = "0123456789abcdef";
const sample = (subject: string, metric: string, value: number): Sample => ({
  subject,
  uid,
  metric,
  at: 0,
  value,
});

test("every metric of every kind has a name for Prometheus, in base units", () => {
  const samples = Object.entries(metricsOfKinds).flatMap(([kind, metrics]) =>
    Object.keys(metrics).map((metric) => sample(kind === "hosts" ? "/hosts/a" : `/${kind}/p/a`, metric, 2)),
  );
  const read = readExposition(renderExposition(familiesOf(samples)));
  expect(read).toHaveLength(samples.length);
  expect(read).toContainEqual({
    name: "strata_instance_memory_bytes",
    labels: { project: "p", instance: "a", uid },
    value: 2_097_152,
  });
  expect(read).toContainEqual({
    name: "strata_load_balancer_latency_seconds",
    labels: { project: "p", load_balancer: "a", uid, quantile: "0.95" },
    value: 0.002,
  });
  expect(read).toContainEqual({ name: "strata_host_load1", labels: { host: "a", uid }, value: 2 });
});

test("a server of a balancer, and a group's own metric", () => {
  const text = renderExposition(
    familiesOf([
      sample("/load-balancers/p/lb", `requests@${uid}`, 1.5),
      sample("/load-balancers/p/lb", "requests", 3),
      sample("/groups/p/g", "custom/students", -1e-7),
      sample("/groups/p/g", "unheard-of", 1),
    ]),
  );
  expect(readExposition(text)).toEqual([
    {
      name: "strata_group_custom",
      labels: { project: "p", group: "g", uid, metric: "students" },
      value: -1e-7,
    },
    {
      name: "strata_load_balancer_requests_per_second",
      labels: { project: "p", load_balancer: "lb", uid },
      value: 3,
    },
    {
      name: "strata_load_balancer_server_requests_per_second",
      labels: { project: "p", load_balancer: "lb", uid, instance_uid: uid },
      value: 1.5,
    },
  ]);
});

test("what would break a line is escaped", () => {
  const labels = { a: 'quote " back \\ line \n end' };
  const text = renderExposition([
    {
      name: "x",
      help: "a \\ and \n more",
      type: "gauge",
      values: [{ labels, value: Number.POSITIVE_INFINITY }],
    },
  ]);
  expect(readExposition(text)).toEqual([{ name: "x", labels, value: Number.POSITIVE_INFINITY }]);
});

test.each([
  ["x 1", /without a TYPE|line feed/],
  ["# TYPE x gauge\nx 1\nx 2\n", /second sample/],
  ['# TYPE x gauge\nx{a="1" 2\n', /no sample|wrong labels/],
  ["# TYPE x gauge\nx one\n", /no number/],
  ['# TYPE x gauge\nx 1\n# TYPE y gauge\ny 1\nx{a=""} 1\n', /not together/],
])("the reader refuses %j", (text, why) => {
  expect(() => readExposition(text)).toThrow(why);
});
