import { expect, test } from "vitest";
import { VirtualClock } from "../core/virtual-clock.ts";
import { LiveLines, type LiveTarget } from "./live-lines.ts";

function collector(more: { isTTY?: boolean; columns?: number; rows?: number }) {
  const target = {
    ...more,
    text: "",
    write: (text: string) => {
      target.text += text;
      return true;
    },
  };
  return target;
}

/** What the screen shows after all that was written. */
function screen(text: string): string[] {
  let lines: string[] = [];
  // Up by so many lines, then all below erased.
  for (const part of text.split("\u001b[")) {
    const up = /^(\d+)A$/.exec(part);
    if (up) lines = lines.slice(0, lines.length - Number(up[1]));
    else lines.push(...part.replace(/^J/, "").split("\n").slice(0, -1));
  }
  return lines;
}

test("without a terminal each change is a line, a percentage alone is not", () => {
  const target = collector({});
  const lines = new LiveLines(target as unknown as LiveTarget, new VirtualClock());
  lines.set("images/a", "building", "1 %", false);
  lines.set("images/a", "building", "50 %", false);
  lines.set("images/b", "ready", "", true);
  lines.set("images/a", "ready", "", true);
  expect(target.text).toBe("images/a: building\nimages/a: ready\n");
});

test("on a terminal lines are redrawn in place, with the time they take, and go away when settled", async () => {
  const target = collector({ isTTY: true, columns: 40, rows: 24 });
  const clock = new VirtualClock();
  const lines = new LiveLines(target as unknown as LiveTarget, clock);
  lines.set("images/a", "building", "1 %", false);
  lines.set("instances/web", "pending: waiting for the image to be made", "", false);
  await clock.advance(5_000);
  expect(screen(target.text)).toEqual([
    "images/a: building 1 % (5 s)",
    "instances/web: pending: waiting … (5 s)",
  ]);
  expect(Math.max(...screen(target.text).map((line) => line.length))).toBeLessThan(40);
  lines.set("images/a", "ready", "", true);
  expect(screen(target.text)).toHaveLength(1);
  lines.clear();
  expect(screen(target.text)).toEqual([]);
  expect(clock.nextAt()).toBeUndefined();
});

test("more lines than the terminal has are summed up", () => {
  const target = collector({ isTTY: true, columns: 80, rows: 10 });
  const lines = new LiveLines(target as unknown as LiveTarget, new VirtualClock());
  for (let i = 0; i < 30; i++) lines.set(`instances/web-${i}`, "starting", "", false);
  expect(screen(target.text)).toHaveLength(8);
  expect(screen(target.text).at(-1)).toBe("… and 23 more");
});
