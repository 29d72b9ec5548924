import { describe, expect, it } from "vitest";
import { renderBridgePort } from "./bridge-port.ts";

const card = { port: "g-0123456789abc", bridge: "br0", macAddress: "02:00:00:00:00:01" };

describe("a guest's port", () => {
  it("is isolated, and its hardware address is known", () => {
    expect(renderBridgePort(card)).toEqual({
      ip: "link set dev g-0123456789abc addrgenmode none\nlink set dev g-0123456789abc master br0\nlink set dev g-0123456789abc type bridge_slave isolated on learning off flood off mcast_flood off\n",
      bridge: "fdb replace 02:00:00:00:00:01 dev g-0123456789abc master static\n",
    });
  });

  it.each([
    { port: "a b" },
    { port: "g\nlink del eth0" },
    { port: "" },
    { bridge: "br0 up" },
    { bridge: "-x" },
    { macAddress: "02:00:00:00:00:01 dev eth0" },
    { macAddress: "" },
  ])("is not made of %j", (change) => {
    expect(() => renderBridgePort({ ...card, ...change })).toThrow(
      expect.objectContaining({ code: "Invalid" }),
    );
  });
});
