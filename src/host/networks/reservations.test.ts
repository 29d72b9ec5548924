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
    expect(await read(`dhcp/${web.uid}`)).toBe("02:00:00:00:00:01,10.1.0.2,web\n");
    expect(await read(`hosts/${web.uid}`)).toBe("10.1.0.2 web\n");
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
    expect(await read(`hosts/${web.uid}`)).toBe("10.1.0.2 web2\n");
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
    const next = { ...web, uid: "0000000000000002", macAddress: "02:00:00:00:00:02" };
    expect(await reservations.put({ ...next, ipAddress: "10.1.0.9" })).toBe(false);
    expect(
      await reservations.put({ ...next, uid: "0000000000000003", macAddress: "02:00:00:00:00:03" }),
    ).toBe(true);
    expect(await reservations.put(web)).toBe(false); // the same guest is back
  });

  it.each([
    [{ uid: "../evil" }],
    [{ hostname: "web,set:x" }],
    [{ hostname: "web\n10.1.0.1 bank" }],
    [{ macAddress: "02:00:00:00:00:01,ignore" }],
    [{ macAddress: "*:*:*:*:*:*" }],
    [{ ipAddress: "10.1.0.2 evil" }],
  ])("refuse %j", (change) => {
    expect(() => renderReservation({ ...web, ...change })).toThrow(
      expect.objectContaining({ code: "Invalid" }),
    );
  });
});
