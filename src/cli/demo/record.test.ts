import { expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { Recording } from "./record.ts";

const group = (ready: number) =>
  ({ metadata: { name: "web" }, status: { ...groupKind.initialStatus(), ready } }) as Group;

test("members and requests, from the beginning on", async () => {
  const clock = new VirtualClock();
  const recording = new Recording(clock);
  const wait = (ms: number) => clock.advance(ms);
  recording.see(group(1));
  await wait(5_000);
  recording.answered("web", { sentMs: clock.monotonicMs(), tookMs: 1, status: 200 });
  await wait(1);
  recording.begin();
  await wait(1_000);
  recording.see(group(1));
  recording.answered("web", { sentMs: clock.monotonicMs(), tookMs: 3, status: 200, by: "web-1" });
  recording.see(group(2));
  await wait(1_000);
  recording.see(group(1));
  recording.answered("web", { sentMs: clock.monotonicMs(), tookMs: 3, status: 503 });
  expect(recording.serving("web")).toEqual([
    { atMs: 0, value: 1 },
    { atMs: 1_000, value: 2 },
    { atMs: 2_000, value: 1 },
  ]);
  expect(recording.range("web", 500, 1_500)).toEqual({ least: 1, most: 2, last: 2 });
  expect(recording.range("web", 2_500, 3_000)).toEqual({ least: 1, most: 1, last: 1 });
  expect(recording.count(0, 3_000)).toEqual({ sent: 2, failed: 1, by: new Map([["web-1", 1]]) });
  expect(recording.load(4_000, 4).map(({ sent, failed }) => [sent, failed])).toEqual([
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 0],
  ]);
});
