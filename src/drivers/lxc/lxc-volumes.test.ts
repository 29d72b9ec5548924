import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { volumeLines } from "./lxc-volumes.ts";

test("the hook is told source, target and the guest's root of each volume", () => {
  const root = { type: "tree", path: "/tree", idBase: 1_000_000, idCount: 65_536 } as const;
  const volume = (number: number) =>
    ({
      type: "mount",
      id: `v${number}` as Uid,
      path: `/v/${number}/tree`,
      target: `/srv/${number}`,
    }) as const;
  expect(volumeLines({ root, volumes: [volume(1), volume(2)] })).toBe(
    "/v/1/tree\t/srv/1\t1000000\n/v/2/tree\t/srv/2\t1000000\n",
  );
  expect(volumeLines({ root })).toBe("");
});
