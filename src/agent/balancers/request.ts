/** From resources to what the host is asked for. Pure. */
import type { BalancerRequest, ServerRequest } from "../../host/balancers/balancers.ts";
import { type Certificate, challengeForms } from "../../kinds/certificate.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";

export interface RequestSources {
  balancer: LoadBalancer;
  /** The host's address in a network, by the uid of that; undefined: it is not here yet. */
  sourceOf(network: string): string | undefined;
  /** Content of the certificate of that name, PEM. */
  pemOf(name: string): string;
  /** All of the project: any of them may prove itself through this balancer. */
  certificates: readonly Certificate[];
}

export function balancerRequest({ balancer, sourceOf, pemOf, certificates }: RequestSources): {
  request: BalancerRequest;
  /** Names of targets whose network is not here yet. */
  waiting: string[];
} {
  const { spec, status, metadata } = balancer;
  const waiting: string[] = [];
  const servers: ServerRequest[] = [];
  for (const { uid, name, address, port, network, draining } of status.targets) {
    const source = sourceOf(network);
    if (source === undefined) waiting.push(name);
    else servers.push({ uid, address, port, source, draining });
  }
  const names = new Set(spec.listeners.flatMap((listener) => listener.certificates));
  const challenges = certificates
    .flatMap(({ status }) => Object.entries(status.challenges))
    .filter(([token, answer]) => challengeForms.token.test(token) && challengeForms.answer.test(answer));
  const answers = spec.listeners.some(({ protocol }) => protocol === "http");
  return {
    request: {
      uid: metadata.uid,
      spec,
      servers,
      certificates: new Map([...names].map((name) => [name, pemOf(name)])),
      challenges: new Map(answers ? challenges : []),
    },
    waiting,
  };
}
