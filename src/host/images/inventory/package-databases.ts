/**
 * The software that a root tree's package manager has recorded: dpkg (Debian, Ubuntu) and apk (Alpine). Pure, over the
 * database's text; lines that are damaged are left out, never an error, since they say nothing about the others.
 */
export interface InstalledPackage {
  type: "deb" | "apk";
  name: string;
  version: string;
  architecture: string;
  /** The source package that it was built from, where that has another name. */
  source?: string;
  /** As the database has it. */
  license?: string;
  homepage?: string;
}

/** `/var/lib/dpkg/status` (deb-control(5), dpkg(1)): packages whose files are there. */
export function parseDpkgStatus(text: string): InstalledPackage[] {
  return sorted(
    text.split(/\n\n+/).flatMap((paragraph) => {
      const fields = new Map<string, string>();
      for (const line of paragraph.split("\n")) {
        const [, key, value] = /^([A-Za-z][A-Za-z0-9-]*):\s*(.*)$/.exec(line) ?? [];
        if (key !== undefined && !fields.has(key)) fields.set(key, (value ?? "").trim());
      }
      const [name, version] = [fields.get("Package"), fields.get("Version")];
      const state = fields.get("Status")?.split(" ")[2];
      if (!name || !version || state === undefined || /^(not-installed|config-files)$/.test(state)) return [];
      const source = fields.get("Source")?.split(" ")[0];
      const homepage = fields.get("Homepage");
      return [
        {
          ...{ type: "deb" as const, name, version, architecture: fields.get("Architecture") ?? "" },
          ...(source && source !== name && { source }),
          ...(homepage && { homepage }),
        },
      ];
    }),
  );
}

/** `/lib/apk/db/installed` (apk-tools, "apk v2 database"): one letter a field, a blank line between packages. */
export function parseApkInstalled(text: string): InstalledPackage[] {
  return sorted(
    text.split(/\n\n+/).flatMap((paragraph) => {
      const fields = new Map<string, string>();
      for (const line of paragraph.split("\n")) {
        if (line[1] === ":" && !fields.has(line[0] ?? "")) fields.set(line[0] ?? "", line.slice(2).trim());
      }
      const [name, version] = [fields.get("P"), fields.get("V")];
      if (!name || !version) return [];
      const [source, license, homepage] = [fields.get("o"), fields.get("L"), fields.get("U")];
      return [
        {
          ...{ type: "apk" as const, name, version, architecture: fields.get("A") ?? "" },
          ...(source && source !== name && { source }),
          ...(license && { license }),
          ...(homepage && { homepage }),
        },
      ];
    }),
  );
}

function sorted(packages: InstalledPackage[]): InstalledPackage[] {
  const key = ({ name, architecture, version }: InstalledPackage) => `${name} ${architecture} ${version}`;
  return packages.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}
