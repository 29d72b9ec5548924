import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { renderSeed, type SeedOptions } from "./seed.ts";

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk1 ada@example";
const options: SeedOptions = {
  uid: "0123456701234567",
  hostname: "web",
  domain: "demo.internal",
  publicKeys: [key],
  userData: undefined,
  nics: [{ macAddress: "02:00:00:00:00:01" }],
};

describe("renderSeed", () => {
  it("tells a guest who it is", () => {
    const seed = renderSeed(options);
    expect(seed.metaData).toBe(`instance-id: "0123456701234567"
local-hostname: "web.demo.internal"
public-keys:
  - "${key}"
`);
    expect(seed.networkConfig).toBe(`version: 2
ethernets:
  nic0:
    match:
      macaddress: "02:00:00:00:00:01"
    dhcp4: true
    dhcp6: false
`);
    expect(seed.userData).toBe("");
  });

  it("lets root in with the keys, also beside user data", () => {
    for (const userData of [undefined, "#!/bin/sh\n"]) {
      expect(renderSeed({ ...options, userData }).vendorData).toBe("#cloud-config\ndisable_root: false\n");
    }
  });

  it("configures each card by its hardware address, the first one's routes before the others'", () => {
    const nics = [
      { macAddress: "02:00:00:00:00:01", ipv6: { address: "fd00::1" } },
      { macAddress: "12:34:56:12:34:56" },
    ];
    expect(parse(renderSeed({ ...options, nics }).networkConfig, { version: "1.1" })).toEqual({
      version: 2,
      ethernets: {
        nic0: {
          match: { macaddress: "02:00:00:00:00:01" },
          dhcp4: true,
          dhcp6: true,
          "dhcp4-overrides": { "route-metric": 100 },
          "dhcp6-overrides": { "route-metric": 100 },
        },
        nic1: {
          match: { macaddress: "12:34:56:12:34:56" },
          dhcp4: true,
          dhcp6: false,
          "dhcp4-overrides": { "route-metric": 200 },
          optional: true,
        },
      },
    });
    expect(renderSeed({ ...options, nics: [] }).networkConfig).toBe("version: 2\nethernets: {}\n");
  });

  it("needs no keys", () => {
    expect(renderSeed({ ...options, publicKeys: [] }).metaData).toContain("public-keys: []\n");
  });

  it("hands user data over as it is", () => {
    const userData = '#!/bin/sh\r\necho \u0000 \'"$HOME" ü\n';
    expect(renderSeed({ ...options, userData }).userData).toBe(userData);
  });

  it("keeps every key one text, whatever its comment says, in plain ASCII", () => {
    const comment = fc
      .string({ unit: "binary", maxLength: 200 })
      .filter((text) => !/[\r\n]/.test(`key ${text}`.trim()));
    fc.assert(
      fc.property(fc.array(comment, { maxLength: 4 }), (comments) => {
        const publicKeys = comments.map((text) => `ssh-ed25519 AAAA ${text}`.trim());
        const { metaData } = renderSeed({ ...options, publicKeys });
        expect(metaData).toMatch(/^[\x20-\x7e\n]*$/);
        for (const version of ["1.1", "1.2"] as const) {
          expect(parse(metaData, { version })).toEqual({
            "instance-id": options.uid,
            "local-hostname": "web.demo.internal",
            "public-keys": publicKeys,
          });
        }
      }),
    );
  });

  it.each<Partial<SeedOptions>>([
    { hostname: "web\nruncmd: []" },
    { hostname: "web.other" },
    { domain: "demo\n" },
    { domain: "" },
    { publicKeys: [`${key}\nssh-rsa AAAA mallory`] },
    { nics: [{ macAddress: "02:00:00:00:00:01" }, { macAddress: "02:00:00:00:00:01\n" }] },
  ])("refuses %j", (change) => {
    expect(() => renderSeed({ ...options, ...change })).toThrow(expect.objectContaining({ code: "Invalid" }));
  });
});
