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
        meaning: "Application containers (driver: docker) are not offered here.",
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
        meaning: "Application containers (driver: docker) are not offered here.",
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

/** `programs`: of those that buildah needs, which are installed. An Engine that was not asked may still be there. */
export function builderFindings(
  fingerprint: Fingerprint | undefined,
  programs: Readonly<Record<"buildah" | "slirp4netns", boolean>>,
): Finding[] {
  const engine = fingerprint?.available === true;
  const buildah = programs.buildah && programs.slirp4netns;
  const missing = Object.entries(programs).flatMap(([name, there]) => (there ? [] : [name]));
  const facts = { missing: missing.join(" ") };
  if (engine || buildah) {
    const by = engine ? "the Docker Engine" : "buildah";
    const meaning = "`strata image build DIR` works here.";
    return [
      { area: "docker", title: `${by} builds Dockerfiles`, level: "ok", facts: {}, meaning, advice: "" },
    ];
  }
  return [
    {
      area: "docker",
      title: "nothing that was found can build Dockerfiles",
      level: "info",
      facts,
      meaning: "`strata image build DIR` needs a Docker Engine, or buildah with slirp4netns.",
      advice: `To build Dockerfiles without an Engine: apt-get install ${missing.join(" ")}.`,
    },
  ];
}
