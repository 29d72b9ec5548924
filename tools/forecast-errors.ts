/** Prints the table of docs/forecast.md: `node tools/forecast-errors.ts`. */
import { scoreTable, seriesNames, walkForward } from "../src/kinds/scaling/testing-walk-forward.ts";

const scores = await Promise.all(seriesNames.map(walkForward));
console.log(scoreTable(scores.flat()).join("\n"));
