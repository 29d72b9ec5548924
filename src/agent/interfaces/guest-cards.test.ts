import { expect, test } from "vitest";
import { GuestCards } from "./guest-cards.ts";

test("device numbers: the lowest that is free, also of claims that are just being recorded", () => {
  const cards = new GuestCards();
  expect(cards.claimDevice("web", "a", new Set([2]))).toBe(1);
  expect(cards.claimDevice("web", "b", new Set([2]))).toBe(3);
  expect(cards.claimDevice("web", "a", new Set([2]))).toBe(1);
  expect(cards.claimDevice("db", "c", new Set())).toBe(1);
  cards.unplugged("web", "a");
  expect(cards.claimDevice("web", "d", new Set([2, 3]))).toBe(1);
});

test("what a guest surely has", () => {
  const cards = new GuestCards();
  cards.plugged("web", "a");
  expect([cards.has("web", "a"), cards.has("web", "b"), cards.has("db", "a")]).toEqual([true, false, false]);
  cards.beginStart("web", ["b"]);
  expect([cards.has("web", "a"), cards.has("web", "b"), cards.isStarting("web")]).toEqual([
    false,
    true,
    true,
  ]);
  cards.endStart("web");
  expect(cards.isStarting("web")).toBe(false);
  cards.forget("web");
  expect(cards.has("web", "b")).toBe(false);
});
