/**
 * A software inventory as an SPDX 2.3 document in JSON (https://spdx.github.io/spdx-spec/v2.3/), with a package URL
 * (purl) for each package, by which scanners look vulnerabilities up. A function of the image: nothing in it tells when
 * or where it was written. Pure.
 */
import { hash } from "node:crypto";
import type { InstalledPackage } from "./package-databases.ts";

export interface InventoryFacts {
  digest: string;
  /** PRETTY_NAME of os-release. */
  os: string;
  /** ID and VERSION_ID of os-release, or "". */
  osId: string;
  osVersion: string;
  packages: readonly InstalledPackage[];
}

const unknown = "NOASSERTION";
const rootId = "SPDXRef-Image";

export function spdxDocument({ digest, os, osId, osVersion, packages }: InventoryFacts): string {
  const digits = digest.slice("sha256:".length);
  const common = { downloadLocation: unknown, filesAnalyzed: false, copyrightText: unknown };
  const found = packages.map((one) => ({ id: idOf(one), one }));
  const document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: `strata-image-${digits.slice(0, 12)}`,
    documentNamespace: `https://spdx.org/spdxdocs/strata-image-${digits}`,
    creationInfo: { created: "1970-01-01T00:00:00Z", creators: ["Tool: strata"] },
    packages: [
      {
        ...{ SPDXID: rootId, name: os || "image", versionInfo: digest, ...common },
        ...{ licenseConcluded: unknown, licenseDeclared: unknown, primaryPackagePurpose: "OPERATING-SYSTEM" },
        checksums: [{ algorithm: "SHA256", checksumValue: digits }],
      },
      ...found.map(({ id, one }) => ({
        ...{ SPDXID: id, name: one.name, versionInfo: one.version, ...common },
        ...{ licenseConcluded: unknown, licenseDeclared: unknown },
        ...(one.license !== undefined && { licenseComments: `the package says: ${one.license}` }),
        ...(one.homepage !== undefined && { homepage: one.homepage }),
        ...(one.source !== undefined && { sourceInfo: `built from the source package ${one.source}` }),
        externalRefs: [
          {
            referenceCategory: "PACKAGE-MANAGER",
            referenceType: "purl",
            referenceLocator: packageUrl(one, osId, osVersion),
          },
        ],
      })),
    ],
    relationships: [
      { spdxElementId: "SPDXRef-DOCUMENT", relationshipType: "DESCRIBES", relatedSpdxElement: rootId },
      ...found.map(({ id }) => ({
        spdxElementId: rootId,
        relationshipType: "CONTAINS",
        relatedSpdxElement: id,
      })),
    ],
  };
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

/** Of package-url/purl-spec, types deb and apk. */
export function packageUrl(
  { type, name, version, architecture }: InstalledPackage,
  osId: string,
  osVersion: string,
): string {
  const part = (text: string) => encodeURIComponent(text).replaceAll("%3A", ":").replaceAll("+", "%2B");
  const namespace = osId === "" ? "" : `${part(osId)}/`;
  const qualifiers = [
    ...(architecture === "" ? [] : [`arch=${part(architecture)}`]),
    ...(osId === "" || osVersion === "" ? [] : [`distro=${part(`${osId}-${osVersion}`)}`]),
  ];
  const query = qualifiers.length === 0 ? "" : `?${qualifiers.join("&")}`;
  return `pkg:${type}/${namespace}${part(name)}@${part(version)}${query}`;
}

/** Letters, digits, dots and hyphens only; the rest is told apart by a hash. */
function idOf({ type, name, version, architecture }: InstalledPackage): string {
  const plain = `${type}-${name}-${architecture}`.replace(/[^A-Za-z0-9.-]/g, "-");
  return `SPDXRef-${plain}-${hash("sha256", `${name} ${architecture} ${version}`).slice(0, 8)}`;
}
