/** What is answered about metrics; the API gives it, clients read it. */
import type { MeasuredKind, MetricUnit } from "./metric-names.ts";

export interface MetricSeries {
  kind: MeasuredKind;
  project?: string;
  name: string;
  uid: string;
  metric: string;
  unit: MetricUnit;
  /** RFC 3339. */
  from: string;
  until: string;
  stepSeconds: number;
  /** In the order of time; steps without a sample are left out. */
  points: { at: string; mean: number; min: number; max: number }[];
}

/** The newest values of one resource; none is older than 50 s. */
export interface CurrentMetrics {
  project?: string;
  name: string;
  uid: string;
  /** RFC 3339. */
  at: string;
  values: Record<string, number>;
}
