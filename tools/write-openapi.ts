/** Writes openapi/strata.json anew. Run it after a change of a kind or a route; a test compares. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openApiText } from "../src/api/openapi.ts";

writeFileSync(fileURLToPath(new URL("../openapi/strata.json", import.meta.url)), openApiText());
