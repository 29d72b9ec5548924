import { clientConformance } from "../client/conformance.ts";
import { createLocalClient } from "./local-client.ts";

clientConformance("of the same process", ({ services }, http) => createLocalClient(services, http));
