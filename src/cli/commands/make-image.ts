/** Makes an image of a source and, unless --no-wait, tells how it comes along. */
import type { JsonObject } from "../../core/json.ts";
import { imageKind } from "../../kinds/image.ts";
import type { Call } from "../command.ts";
import type { Output } from "../output.ts";
import { asJson, imageForm } from "../show.ts";
import { awaitImages } from "../stack/await-stack.ts";
import { patience } from "../watching.ts";

export async function makeImage(call: Call, name: string, source: JsonObject): Promise<Output> {
  const { session, options } = call;
  const { project, signal } = session;
  const client = await session.startedClient();
  const spec = { description: options.text("description") ?? "", source };
  const created = await client.create(imageKind, { name, project, spec }, { signal });
  session.onInterrupt(`interrupted; the image is made in the background: see \`strata image info ${name}\``);
  const images = session.wait
    ? await awaitImages(client, project, [name], patience(session), session.printer)
    : [created];
  return {
    type: "table",
    columns: imageForm.columns,
    rows: images.map((image) => imageForm.row(image)),
    empty: "no image",
    json: asJson(images[0]),
  };
}
