import type { CommandSpec } from "../command.ts";
import { administrationCommands } from "./administration.ts";
import { imageCommands } from "./images.ts";
import { instanceCommands } from "./instances.ts";
import { listingCommands } from "./listings.ts";
import { sessionCommands } from "./sessions.ts";
import { stackCommands } from "./stacks.ts";
import { systemCommands } from "./system.ts";

/** Every command, in the order of help. */
export const commands: readonly CommandSpec[] = [
  ...stackCommands,
  ...instanceCommands,
  ...listingCommands,
  ...sessionCommands,
  ...imageCommands,
  ...administrationCommands,
  ...systemCommands,
];
