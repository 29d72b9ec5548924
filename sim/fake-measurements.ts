/** Plausible figures for guests without substance: each has a level of its own and goes up and down around it. */
import type { Clock } from "../src/core/clock.ts";
import type { Measurements } from "../src/host/measurements/measurements.ts";

const mebibyte = 1024 ** 2;
const periodMs = 10 * 60_000;

/** `clock` tells how long they have been at work. */
export function createFakeMeasurements(
  clock: Clock,
  machine: { cpus: number; memoryMib: number },
): Measurements {
  const begun = clock.monotonicMs();
  const elapsedMs = () => clock.monotonicMs() - begun;
  return {
    open({ uid }) {
      const chance = numberOf(uid);
      const level = 0.05 + 0.3 * chance;
      return () => {
        const worked = integral(elapsedMs(), level, chance);
        return {
          cpuMicros: Math.round(worked * 1_000),
          memoryBytes: Math.round((64 + 256 * chance + 32 * wave(elapsedMs(), chance)) * mebibyte),
          diskReadBytes: Math.round(worked * 20),
          diskWrittenBytes: Math.round(worked * 60),
          receivedBytes: Math.round(worked * 400),
          sentBytes: Math.round(worked * 1_600),
        };
      };
    },
    host() {
      const total = elapsedMs() * machine.cpus;
      return {
        cpuBusyMs: integral(elapsedMs(), 0.2, 0) * machine.cpus,
        cpuTotalMs: total,
        memoryUsedBytes: machine.memoryMib * mebibyte * (0.3 + 0.05 * wave(elapsedMs(), 0)),
        memoryTotalBytes: machine.memoryMib * mebibyte,
        load: machine.cpus * (0.2 + 0.1 * wave(elapsedMs(), 0)),
        diskUsedBytes: 400 * 1024 * mebibyte,
        diskTotalBytes: 1024 * 1024 * mebibyte,
      };
    },
  };
}

/** Between -1 and 1. */
function wave(ms: number, phase: number): number {
  return Math.sin(2 * Math.PI * (ms / periodMs + phase));
}

/** Of level * (1 + wave / 2) over time: what a counter of it says. */
function integral(ms: number, level: number, phase: number): number {
  const turn = (at: number) => Math.cos(2 * Math.PI * (at / periodMs + phase));
  return level * (ms + ((turn(0) - turn(ms)) * periodMs) / (4 * Math.PI));
}

/** The same number in [0, 1) for the same text. */
function numberOf(text: string): number {
  let hash = 0;
  for (const letter of text) hash = (hash * 31 + letter.charCodeAt(0)) % 1_000_003;
  return hash / 1_000_003;
}
