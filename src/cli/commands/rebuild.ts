/** `instance rebuild`: back to the image, or to another one. */
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { settled } from "./instances.ts";

export const rebuildCommand: CommandSpec = {
  path: "instance rebuild",
  group: "Instances",
  summary: "Make the roots of instances anew from their image; volumes, names and addresses stay",
  arguments: [{ name: "<instance...>", summary: "names or beginnings of the ids", completes: "instances" }],
  options: [{ flags: "--image <name>", summary: "from this image instead, from now on" }],
  examples: ["strata instance rebuild lms", "strata instance rebuild lms --image debian13 --yes"],
  run: rebuild,
};

async function rebuild(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const { project, signal } = session;
  const client = await session.client();
  const found = await Promise.all(args.map((text) => resolve(client, instanceKind, project, text, signal)));
  const wanted = options.text("image");
  const image = wanted === undefined ? undefined : await resolve(client, imageKind, project, wanted, signal);
  const names = found.map(({ metadata }) => metadata.name);
  await session.confirm(
    `${names.join(", ")}: all that was written to ${names.length > 1 ? "their roots" : "its root"} will be lost; ` +
      "volumes stay. Go on?",
  );
  session.onInterrupt("interrupted; the rebuild goes on in the background: see `strata list`");
  const patched = await Promise.all(
    found.map(({ metadata, spec }) => {
      const change = { rebuilds: spec.rebuilds + 1, ...(image && { image: image.metadata.name }) };
      return client.patch(instanceKind, { project, name: metadata.name }, { spec: change }, { signal });
    }),
  );
  return await settled(client, session, patched);
}
