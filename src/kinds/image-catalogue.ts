/**
 * Names for the images that everybody knows, and where they come from: distributions' own cloud images with the list of
 * checksums beside them, or a simplestreams server. A name, once here, keeps its meaning. Pure.
 */
export type CatalogueSource =
  | {
      type: "file";
      /** Directory of the image and of the list, with a slash at its end. */
      base: string;
      file: string;
      /** Name of the list of checksums in that directory. */
      checksums: string;
      format: "qcow2";
    }
  | { type: "simplestreams"; server: string; alias: string };

export interface CatalogueEntry {
  name: string;
  title: string;
  /** `architecture` as Debian names it: amd64, arm64. */
  source(architecture: string): CatalogueSource;
}

const debian = (version: string, suite: string): CatalogueEntry => ({
  name: `debian/${version}`,
  title: `Debian ${version} (${suite})`,
  source: (architecture) => ({
    type: "file",
    base: `https://cloud.debian.org/images/cloud/${suite}/latest/`,
    file: `debian-${version}-generic-${architecture}.qcow2`,
    checksums: "SHA512SUMS",
    format: "qcow2",
  }),
});

const ubuntu = (version: string, codename: string): CatalogueEntry => ({
  name: `ubuntu/${version}`,
  title: `Ubuntu ${version} LTS (${codename})`,
  source: (architecture) => ({
    type: "file",
    base: `https://cloud-images.ubuntu.com/releases/${codename}/release/`,
    file: `ubuntu-${version}-server-cloudimg-${architecture}.img`,
    checksums: "SHA256SUMS",
    format: "qcow2",
  }),
});

const linuxContainers = (name: string, title: string): CatalogueEntry => ({
  name,
  title,
  source: () => ({
    type: "simplestreams",
    server: "https://images.linuxcontainers.org",
    alias: `${name}/cloud`,
  }),
});

export const imageCatalogue: readonly CatalogueEntry[] = [
  debian("12", "bookworm"),
  debian("13", "trixie"),
  ubuntu("22.04", "jammy"),
  ubuntu("24.04", "noble"),
  linuxContainers("almalinux/9", "AlmaLinux 9"),
  linuxContainers("alpine/edge", "Alpine edge"),
  linuxContainers("archlinux/current", "Arch Linux"),
  linuxContainers("opensuse/tumbleweed", "openSUSE Tumbleweed"),
  linuxContainers("rockylinux/9", "Rocky Linux 9"),
];

export const catalogueNames = imageCatalogue.map(({ name }) => name);

export function findInCatalogue(name: string): CatalogueEntry | undefined {
  return imageCatalogue.find((entry) => entry.name === name);
}

/** Entries whose name or title has all the words, without regard to case. */
export function searchCatalogue(words: readonly string[]): CatalogueEntry[] {
  const wanted = words.map((word) => word.toLowerCase());
  return imageCatalogue.filter(({ name, title }) =>
    wanted.every((word) => `${name} ${title}`.toLowerCase().includes(word)),
  );
}
