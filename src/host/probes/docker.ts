import type { Fingerprint } from "../../kinds/host.ts";
import type { Finding } from "./finding.ts";

/** What the docker driver found out by running a container; undefined where there is no Engine, or nobody may ask it. */
export function dockerFindings(fingerprint: Fingerprint | undefined): Finding[] {
  const area = "docker";
  if (fingerprint === undefined) {
    return [
      {
        area,
        title: "no Docker Engine was asked",
        level: "info",
        facts: {},
        meaning: "Application containers (driver: docker) are not offered here; nothing else needs it.",
        advice: "To offer them, install one (apt-get install docker.io) and look again as root.",
      },
    ];
  }
  const { available, message, version, facts } = fingerprint;
  if (!available) {
    return [
      {
        area,
        title: "the Docker Engine cannot run a container for Strata",
        level: "warning",
        facts: { reason: message },
        meaning: "Application containers (driver: docker) are not offered here; nothing else needs it.",
        advice: "The reason above comes from the Engine; `docker info` and its log tell more.",
      },
    ];
  }
  return [
    {
      area,
      title: `Docker Engine ${version} runs containers for Strata`,
      level: "ok",
      facts,
      meaning: "Application containers (driver: docker) are offered here.",
      advice: "",
    },
  ];
}
