/** Builds with buildah what never ends, in a process that a test can kill. Argument: JSON of the builder's options and the order. */
import { systemClock } from "../src/core/clock.ts";
import { createBuildahBuilder } from "../src/host/images/dockerfile/buildah/buildah-builder.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";

const { builder: options, scope, order } = JSON.parse(process.argv[2] ?? "{}");
const cgroups = await openCgroups({ clock: systemClock });
const builder = createBuildahBuilder({ ...options, cgroups, clock: systemClock });
const { signal } = new AbortController();
const session = await builder.open(scope, signal);
await session.build({ ...order, signal, onLine: (line) => process.stdout.write(`${line}\n`) });
