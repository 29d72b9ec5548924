import { expect, test } from "vitest";
import { StrataError } from "../../core/errors.ts";
import type { PreparedWrite } from "../requests.ts";
import { CommitQueue, type Outcome, queueLimits } from "./commit-queue.ts";

type Group = readonly (readonly PreparedWrite[])[];

/** A queue whose groups are recorded and answered 1, 2, 3 …, unless `refuse` throws. */
function recordingQueue(refuse: (group: Group) => void = () => {}) {
  const groups: string[][] = [];
  let revision = 0;
  const queue = new CommitQueue((group): Outcome[] => {
    groups.push(group.map((writes) => writes[0]?.key ?? ""));
    refuse(group);
    return group.map((writes) => {
      if (writes[0]?.key === "conflict") return new StrataError("Conflict", "as told");
      return ++revision;
    });
  });
  return { queue, groups };
}

function writes(key: string, count = 1, bytes = 1): PreparedWrite[] {
  return Array.from({ length: count }, () => ({ key, text: "x".repeat(bytes), ifRevision: undefined }));
}

test("commits of one turn are one group, in order; those of the next turn are another", async () => {
  const { queue, groups } = recordingQueue();
  const first = queue.add(writes("a"));
  const second = Promise.resolve().then(() => queue.add(writes("b")));
  expect(await Promise.all([first, second])).toEqual([1, 2]);
  expect(await queue.add(writes("c"))).toBe(3);
  expect(groups).toEqual([["a", "b"], ["c"]]);
});

test("each commit of a group has its own outcome", async () => {
  const { queue, groups } = recordingQueue();
  const results = await Promise.allSettled(["a", "conflict", "b"].map((key) => queue.add(writes(key))));
  expect(results).toMatchObject([{ value: 1 }, { reason: { code: "Conflict" } }, { value: 2 }]);
  expect(groups).toHaveLength(1);
});

test("a group that fails is applied one by one, so that only the culprit fails", async () => {
  const { queue, groups } = recordingQueue((group) => {
    if (group.some(([write]) => write?.key === "large")) throw new StrataError("Unavailable", "no space");
  });
  const results = await Promise.allSettled(["a", "large", "b"].map((key) => queue.add(writes(key))));
  expect(results).toMatchObject([{ value: 1 }, { reason: { code: "Unavailable" } }, { value: 2 }]);
  expect(groups).toEqual([["a", "large", "b"], ["a"], ["large"], ["b"]]);
});

test("groups are bounded in writes and bytes, and a single commit always fits", async () => {
  const { queue, groups } = recordingQueue();
  const half = queueLimits.groupWrites / 2;
  const commits = [
    writes("a", half),
    writes("b", half),
    writes("c", 1, queueLimits.groupBytes + 1),
    writes("d"),
    writes("e"),
  ];
  await Promise.all(commits.map((commit) => queue.add(commit)));
  expect(groups).toEqual([["a", "b"], ["c"], ["d", "e"]]);
});

test("a full queue refuses, and takes more once it has drained", async () => {
  const { queue } = recordingQueue();
  const waiting = Array.from({ length: queueLimits.waitingCommits }, () => queue.add(writes("a")));
  await expect(queue.add(writes("b"))).rejects.toMatchObject({ code: "Unavailable" });
  await Promise.all(waiting);
  await expect(queue.add(writes("b"))).resolves.toBeGreaterThan(0);
});

test("a queue full of bytes refuses", async () => {
  const { queue } = recordingQueue();
  const large = writes("a", 32, 1024 * 1024);
  const waiting = queue.add(large);
  await expect(queue.add([...large, ...large])).rejects.toMatchObject({ code: "Unavailable" });
  await waiting;
});

test("flush answers everything that waits, before it returns", async () => {
  const { queue, groups } = recordingQueue();
  const waiting = [queue.add(writes("a", queueLimits.groupWrites)), queue.add(writes("b"))];
  queue.flush();
  expect(groups).toEqual([["a"], ["b"]]);
  expect(await Promise.all(waiting)).toEqual([1, 2]);
});
