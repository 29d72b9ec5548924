import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { readLayer } from "../../host/drift/read-layer.ts";
import type { Drift, ObservedGuest } from "../driver.ts";

type StateOf = (handle: JsonObject) => Promise<ObservedGuest<JsonObject>["state"] | undefined>;

/** A container goes on while it is read: what its kernel shows is the host's own, so nothing is half written. */
export function lxcDrift(stateOf: StateOf): Drift<JsonObject> {
  return {
    async read(handle, { root, original }, signal) {
      signal.throwIfAborted();
      const before = await stateOf(handle);
      if (before === undefined) throw new StrataError("NotFound", "the container does not exist");
      if (root.type !== "tree" || root.layers === undefined) {
        throw new StrataError("Unsupported", "the container's root is no layer over an image");
      }
      const { path: merged, idBase, layers } = root;
      const listings = await readLayer({ merged, idBase, ...layers, original }, signal);
      const ran = before === "running" || (await stateOf(handle)) === "running";
      return { listings, reading: ran ? "running" : "idle" };
    },
  };
}
