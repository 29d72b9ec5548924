import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Reservations, renderReservation } from "./reservations.ts";

const web = {
  uid: "0000000000000001",
  hostname: "web",
  macAddress: "02:00:00:00:00:01",
  ipAddress: "10.1.0.2",
  ipv6Address: "fd00:1::2",
};
let directory: string;
let reservations: Reservations;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-reservations-"));
  reservations = new Reservations(directory);
  await reservations.makeDirectories();
});
afterEach(() => rm(directory, { recursive: true }));

const read = (path: string) => readFile(join(directory, path), "utf8");

describe("reservations", () => {
  it("are one file a guest for DHCP and one for DNS, and no other file is seen", async () => {
    expect(await reservations.put(web)).toBe(false);
    expect(await read(`dhcp/${web.uid}`)).toBe("02:00:00:00:00:01,10.1.0.2,[fd00:1::2],web\n");
    expect(await read(`hosts/${web.uid}`)).toBe("10.1.0.2 web\nfd00:1::2 web\n");
    expect(await readdir(directory)).toEqual(["dhcp", "forgotten", "hosts"]);
    expect(await reservations.put(web)).toBe(false);
    expect(await reservations.forgotten()).toEqual([]);
  });

  it("that changed need a DHCP process that forgets the old one", async () => {
    await reservations.put(web);
    expect(await reservations.put({ ...web, ipAddress: "10.1.0.3" })).toBe(true);
    expect(await reservations.forgotten()).toEqual([web.uid]);
    await reservations.clearForgotten([web.uid]);
    expect(await reservations.forgotten()).toEqual([]);
  });

  it("that only got another name do not", async () => {
    await reservations.put(web);
    expect(await reservations.put({ ...web, hostname: "web2" })).toBe(false);
    expect(await read(`hosts/${web.uid}`)).toBe("10.1.0.2 web2\nfd00:1::2 web2\n");
  });

  it("that were taken back leave a mark until they are forgotten", async () => {
    await reservations.put(web);
    await reservations.remove(web.uid);
    await reservations.remove(web.uid);
    expect(await readdir(join(directory, "dhcp"))).toEqual([]);
    expect(await readdir(join(directory, "hosts"))).toEqual([]);
    expect(await reservations.forgotten()).toEqual([web.uid]);
  });

  it("of a used address need a DHCP process that forgets its old holder; others do not", async () => {
    await reservations.put(web);
    await reservations.remove(web.uid);
    const free = { ipAddress: "10.1.0.9", ipv6Address: "fd00:1::9" };
    const next = (last: number, addresses: Partial<typeof free>) =>
      reservations.put({
        ...web,
        ...free,
        uid: `000000000000000${last}`,
        macAddress: `02:00:00:00:00:0${last}`,
        ...addresses,
      });
    expect(await next(2, {})).toBe(false);
    expect(await next(3, { ipAddress: web.ipAddress })).toBe(true);
    expect(await next(4, { ipv6Address: web.ipv6Address })).toBe(true);
    expect(await reservations.put(web)).toBe(false); // the same guest is back
  });

  it("of a card without a name of its own are not in DNS", async () => {
    await reservations.put(web);
    const { hostname: _, ...nameless } = web;
    expect(await reservations.put(nameless)).toBe(false);
    expect(await read(`dhcp/${web.uid}`)).toBe("02:00:00:00:00:01,10.1.0.2,[fd00:1::2]\n");
    expect(await readdir(join(directory, "hosts"))).toEqual([]);
  });

  it("are read back", async () => {
    await reservations.put(web);
    expect(await reservations.read()).toEqual(new Map([[web.uid, renderReservation(web)]]));
    await rm(join(directory, "dhcp", web.uid));
    expect((await reservations.read()).get(web.uid)?.dhcp).toBe("");
    expect(await new Reservations("/nowhere").read()).toEqual(new Map());
  });

  it.each([
    [{ uid: "../evil" }],
    [{ hostname: "web,set:x" }],
    [{ hostname: "web\n10.1.0.1 bank" }],
    [{ macAddress: "02:00:00:00:00:01,ignore" }],
    [{ macAddress: "*:*:*:*:*:*" }],
    [{ ipAddress: "10.1.0.2 evil" }],
    [{ ipAddress: "fd00::1" }],
    [{ ipv6Address: "fd00::1]" }],
  ])("refuse %j", (change) => {
    expect(() => renderReservation({ ...web, ...change })).toThrow(
      expect.objectContaining({ code: "Invalid" }),
    );
  });
});
