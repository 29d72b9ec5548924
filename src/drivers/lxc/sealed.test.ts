import { spawnSync } from "node:child_process";
import { spawn as spawnPty } from "@lydell/node-pty";
import { expect, test } from "vitest";
import { sealed } from "./sealed.ts";

const listing = { bash: "/bin/bash", file: "/bin/ls", args: ["/proc/self/fd"] };

/** The descriptors that a started program finds, without the one that it lists them with. */
function inherited(command: { file: string; args: string[] }): number[] {
  const { stdout } = spawnSync(command.file, command.args, { encoding: "utf8" });
  const found = stdout.trim().split("\n").map(Number);
  return found.filter((fd) => fd > 2).slice(0, -1);
}

test("nothing is inherited, although a native module leaves descriptors open", () => {
  const pty = spawnPty("/bin/cat", [], {});
  try {
    expect(inherited({ ...listing, args: [...listing.args] })).not.toEqual([]);
    expect(inherited(sealed(listing))).toEqual([]);
  } finally {
    pty.kill("SIGKILL");
  }
});

test("arguments arrive as they are", () => {
  const pty = spawnPty("/bin/cat", [], {});
  try {
    const args = ["%s|", "a b", "$HOME", "'\"", "--norc", "-p"];
    const command = sealed({ bash: "/bin/bash", file: "/usr/bin/printf", args });
    expect(command.file).toBe("/bin/bash");
    expect(spawnSync(command.file, command.args, { encoding: "utf8" }).stdout).toBe(
      "a b|$HOME|'\"|--norc|-p|",
    );
  } finally {
    pty.kill("SIGKILL");
  }
});
