/** `image log`: what the build of an image printed. */
import { imageKind } from "../../kinds/image.ts";
import type { CommandSpec } from "../command.ts";
import { resolve } from "../resolve.ts";

export const imageLogCommand: CommandSpec = {
  path: "image log",
  group: "Images and keys",
  summary: "Show what the build of an image printed, also of one that failed or is under way",
  arguments: [{ name: "<name>", summary: "name or beginning of the id", completes: "images" }],
  examples: ["strata image log shop"],
  run: async ({ session, args }) => {
    const client = await session.client();
    const image = await resolve(client, imageKind, session.project, args[0] ?? "", session.signal);
    const { project = session.project, name } = image.metadata;
    const log = await client.buildLog({ project, name }, { signal: session.signal });
    return {
      type: "message",
      text: log.replace(/\n$/, ""),
      json: { name, lines: log.split("\n").slice(0, -1) },
    };
  },
};
