/**
 * UEFI for guests whose disk starts by it: OVMF, as distributions package it. The program is shared, the variables
 * (boot entries and the like) are a file of the guest's own, begun from the package's template.
 */
import { access, copyFile, rename, rm } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";

/** Program and template of the variables: they belong together. Debian, then Fedora. */
const places: readonly { code: string; variables: string }[] = [
  { code: "/usr/share/OVMF/OVMF_CODE_4M.fd", variables: "/usr/share/OVMF/OVMF_VARS_4M.fd" },
  { code: "/usr/share/OVMF/OVMF_CODE.fd", variables: "/usr/share/OVMF/OVMF_VARS.fd" },
  { code: "/usr/share/edk2/ovmf/OVMF_CODE.fd", variables: "/usr/share/edk2/ovmf/OVMF_VARS.fd" },
];

/**
 * Path of the program; `variables` is there afterwards. Idempotent.
 * @throws Unavailable where the host has no such firmware.
 */
export async function ensureUefi(variables: string): Promise<{ code: string }> {
  for (const place of places) {
    if (!((await exists(place.code)) && (await exists(place.variables)))) continue;
    if (!(await exists(variables))) {
      const next = `${variables}.new`;
      await rm(next, { force: true });
      await copyFile(place.variables, next);
      await rename(next, variables);
    }
    return { code: place.code };
  }
  throw new StrataError(
    "Unavailable",
    "the image's disk starts by UEFI, and this host has no UEFI firmware for guests; install the package ovmf",
  );
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
