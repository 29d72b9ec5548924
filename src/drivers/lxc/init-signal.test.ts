import { expect, test } from "vitest";
import { shutdownSignal } from "./init-signal.ts";

const status = (caught: string, blocked: string) =>
  `Name:\tinit\nSigPnd:\t0000000000000000\nSigBlk:\t${blocked}\nSigIgn:\t0000000000001000\nSigCgt:\t${caught}\n`;
const none = "0000000000000000";

test.each([
  ["systemd, which blocks what it reads from a signalfd", "00000000000004ec", "7fe3c0fe28014a03", 37],
  ["a shell that traps PWR", "0000000020010002", none, 30],
  ["a program that catches TERM", "0000000000004002", none, 15],
  ["a program that catches nothing yet", none, none, undefined],
])("%s", (_title, caught, blocked, expected) => {
  expect(shutdownSignal(status(caught, blocked))).toBe(expected);
});

test("a process that is gone handles nothing", () => {
  expect(shutdownSignal("")).toBeUndefined();
});
