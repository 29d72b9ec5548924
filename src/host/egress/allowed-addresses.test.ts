import { expect, test } from "vitest";
import { parseIp } from "../../core/ip-range.ts";
import { isAllowedAddress, parseNetwork } from "./allowed-addresses.ts";

const network = (text: string) => {
  const found = parseNetwork(text);
  if (!found) throw new Error(text);
  return found;
};
const rules = { allowed: [network("10.1.2.3"), network("fd00:5::/64")], own: [network("93.184.0.0/16")] };
const isAllowed = (text: string) => {
  const address = parseIp(text);
  if (!address) throw new Error(text);
  return isAllowedAddress(address, rules);
};

test.each(["1.1.1.1", "52.216.8.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"])(
  "%s is on the Internet",
  (text) => expect(isAllowed(text)).toBe(true),
);

test.each(["10.1.2.3", "::ffff:10.1.2.3", "fd00:5::1"])("%s is what the operator has named", (text) =>
  expect(isAllowed(text)).toBe(true),
);

test.each([
  ...["0.0.0.0", "10.1.2.4", "100.127.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1"],
  ...["192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "93.184.1.1"],
  ...["::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe"],
  ...["64:ff9b:1::1", "2002:7f00:1::1", "2001::1", "fd00:6::1", "fe80::1", "fec0::1", "ff02::1"],
])("%s is none of a user's business", (text) => expect(isAllowed(text)).toBe(false));

test("a network is a range without bits behind its prefix, or one address", () => {
  expect(parseNetwork("10.0.0.1/8")).toBeUndefined();
  expect(parseNetwork("nas.local")).toBeUndefined();
  expect(network("::1").prefixLength).toBe(128);
});
