/** Groups for tests and benchmarks of plans. */
import { groupKind } from "../group.ts";
import type { PlannedGroup } from "./plan-year.ts";

export function plannedGroup(key: string, fields: object, cpus = 1): PlannedGroup {
  const template = { type: "container", image: "debian", cpus, memoryMib: 512 };
  return {
    key,
    spec: groupKind.spec.parse({ template, max: 10, ...fields }),
    member: { cpus, memoryMib: 512 },
  };
}

export function calendarPolicy(name: string, events: object[], timeZone = "Europe/Berlin") {
  return { type: "calendar", name, calendar: { timeZone, events } };
}

/** Each with two terms a year, a closed weekend and office hours: at four times of day, in two zones. */
export function manyGroups(count: number): PlannedGroup[] {
  return Array.from({ length: count }, (_, index) => {
    const day = String((index % 27) + 1).padStart(2, "0");
    const opens = ["07:00", "07:30", "08:00", "09:00"][index % 4];
    const closes = ["18:00", "20:00", "17:30", "22:00"][index % 4];
    const events = [
      { name: "spring", every: "year", from: `03-${day}`, until: `05-${day}`, min: 3 },
      { name: "autumn", every: "year", from: `09-${day}`, until: `11-${day}`, min: 5 },
      { name: "office", every: "day", from: opens, until: closes, min: 4 },
      { name: "weekend", every: "week", from: "sat", until: "mon 06:00", min: 1 },
    ];
    const policies = [calendarPolicy("terms", events, index % 3 === 0 ? "Europe/Lisbon" : "Europe/Berlin")];
    const desired = (index % 4) + 1;
    return plannedGroup(`group-${index}`, { desired, priority: index % 5, policies }, (index % 3) + 1);
  });
}
