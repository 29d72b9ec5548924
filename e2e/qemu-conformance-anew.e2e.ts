/** The conformance suite with real virtual machines: a new driver before each call, and callers that are killed. */
import { driverConformance } from "../src/drivers/conformance.ts";
import { makeQemuHarness } from "./qemu-harness.ts";

driverConformance("qemu", makeQemuHarness, ["anew", "killed"]);
