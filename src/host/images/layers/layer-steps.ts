import { type ImageOrigin, originLimits } from "../../../kinds/image.ts";
import type { ImageConfig } from "./image-archive.ts";

/**
 * The steps that an image's configuration tells of (image-spec 1.1, "history"), without the frame that the Docker Engine
 * puts around commands. Of very many, the last ones. Strangers wrote them: they are cut to what a status may hold.
 */
export function stepsOf({ history }: ImageConfig): ImageOrigin["steps"] {
  return (history ?? []).slice(-originLimits.steps).map(({ created, created_by: by, comment }) => {
    const text = (by || comment || "")
      // The values of the build's arguments, `|2 A=x B=y /bin/sh -c …`: where they end cannot be told but by the shell.
      .replace(/^\|\d+ .*?(?=\/bin\/sh -c )/s, "")
      .replace(/^\|\d+ .*/s, "RUN (with build arguments)")
      .replace(/^\/bin\/sh -c #\(nop\)\s+/, "")
      .replace(/^\/bin\/sh -c /, "RUN ")
      .replace(/\s+/g, " ")
      .trim();
    const step = { by: text.slice(0, originLimits.stepLength) };
    return created ? { at: created.slice(0, 64), ...step } : step;
  });
}
