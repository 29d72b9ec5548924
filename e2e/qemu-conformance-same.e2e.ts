/** The conformance suite with real virtual machines: one driver from beginning to end. */
import { driverConformance } from "../src/drivers/conformance.ts";
import { makeQemuHarness } from "./qemu-harness.ts";

driverConformance("qemu", makeQemuHarness, ["same"]);
