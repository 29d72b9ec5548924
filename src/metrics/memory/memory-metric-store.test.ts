import { VirtualClock } from "../../core/virtual-clock.ts";
import { metricStoreConformance } from "../conformance.ts";
import { createMemoryMetricStore } from "./memory-metric-store.ts";

metricStoreConformance("the memory metric store", () => {
  const clock = new VirtualClock();
  return { clock, store: createMemoryMetricStore({ clock }), dispose() {} };
});
