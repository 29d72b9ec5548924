import { expect, test } from "vitest";
import { refuseForeignImages } from "./foreign-images.ts";

test.each([
  "FROM strata.local/n:00",
  "FROM --platform=x strata.local/n/build:1",
  `ARG A=strata.lo\nFROM \${A}cal/n:00`,
  `ARG A\nFROM \${A:-strata.local}/n:00`,
  "ARG B=strata.local/n A='x B=ok'\nFROM $B",
  'ARG A=x\\" \nFROM $A',
  'FROM "strata.local/n:00"',
  "FROM \\\n# words\nstrata.local/n:00",
  "# escape=`\nFROM `\nstrata.local/n:00",
  "FROM debian\nCOPY --from=strata.local/n:00 / /",
  "FROM debian\nONBUILD COPY --from=strata.local/n:00 / /",
  "FROM sha256:0123456789ab",
  "FROM 0123456789ab",
  "ARG GIVEN\nFROM $GIVEN",
])("refused: %j", (dockerfile) => {
  expect(() => refuseForeignImages({ dockerfile, args: { GIVEN: "strata.local/n:00" } })).toThrow(
    /strata\/NAME/,
  );
});

test.each([
  "FROM strata/base AS abc\nFROM abc\nCOPY --from=0 / /\nCOPY --from=abc / /",
  `ARG V=12\nFROM debian:\${V} AS build\nRUN echo strata.local/n\n`,
  "FROM scratch\nADD x /",
  "FROM node@sha256:0123456789ab",
])("allowed: %j", (dockerfile) => {
  expect(() => refuseForeignImages({ dockerfile, args: {} })).not.toThrow();
});
