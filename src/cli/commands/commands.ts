import type { CommandSpec } from "../command.ts";
import { instanceCommands } from "./instances.ts";
import { listingCommands } from "./listings.ts";
import { stackCommands } from "./stacks.ts";
import { systemCommands } from "./system.ts";

/** Every command, in the order of help. */
export const commands: readonly CommandSpec[] = [
  ...stackCommands,
  ...instanceCommands,
  ...listingCommands,
  ...systemCommands,
];
