/** Draws docs/group-plan.svg from the example in docs/scaling.md: `node tools/draw-plan.ts`. */
import { writeFile } from "node:fs/promises";
import { drawPlan } from "../src/cli/plan/svg.ts";
import { examplePlan } from "../src/cli/plan/testing-example.ts";

await writeFile(new URL("../docs/group-plan.svg", import.meta.url), drawPlan(await examplePlan()));
