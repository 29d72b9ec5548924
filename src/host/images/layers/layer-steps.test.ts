import { expect, test } from "vitest";
import { imageOriginSchema } from "../../../kinds/image.ts";
import { stepsOf } from "./layer-steps.ts";

test("steps are told as the Dockerfile had them", () => {
  const steps = stepsOf({
    history: [
      { created: "2026-11-28T12:00:00Z", created_by: "/bin/sh -c #(nop) ADD file:0123 in / " },
      { created_by: "/bin/sh -c apt-get update\t&& apt-get install nginx" },
      { created_by: 'CMD ["nginx"]', comment: "buildkit" },
      { created_by: "|2 TOKEN=a secret A=b /bin/sh -c make" },
      { created_by: "|1 TOKEN=secret /bin/bash -c make" },
      { comment: "imported" },
      {},
    ],
  });
  expect(steps).toEqual([
    { at: "2026-11-28T12:00:00Z", by: "ADD file:0123 in /" },
    { by: "RUN apt-get update && apt-get install nginx" },
    { by: 'CMD ["nginx"]' },
    { by: "RUN make" },
    { by: "RUN (with build arguments)" },
    { by: "imported" },
    { by: "" },
  ]);
});

test("what strangers wrote fits into a status", () => {
  const long = { created: "9".repeat(100), created_by: "x".repeat(10_000) };
  const steps = stepsOf({ history: Array.from({ length: 300 }, () => long) });
  expect(imageOriginSchema.safeParse({ madeAt: "2026-11-28T12:00:00Z", steps }).error).toBeUndefined();
  expect(stepsOf({})).toEqual([]);
});
