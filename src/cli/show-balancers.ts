/** How load balancers and certificates look in a table. Pure. */
import type { Certificate } from "../kinds/certificate.ts";
import type { LoadBalancer } from "../kinds/load-balancer.ts";
import { stateCell, type TableForm } from "./show.ts";

export const balancerForm: TableForm<LoadBalancer> = {
  columns: ["NAME", "STATE", "PORTS", "LEADS TO", "SERVERS", "HELD", "MESSAGE"],
  row: (balancer) => {
    const { spec, status, metadata } = balancer;
    const to = spec.group === undefined ? (spec.instances ?? []).join(", ") : `group ${spec.group}`;
    return [
      metadata.name,
      stateCell(balancer, status.state),
      spec.listeners.map(({ port, protocol }) => `${port}/${protocol}`).join(", "),
      `${to}:${spec.targetPort}`,
      serversText(balancer),
      String(status.held),
      status.message,
    ];
  },
};

/** `2 up, 1 draining`. */
export function serversText({ status }: LoadBalancer): string {
  const counts = new Map<string, number>();
  for (const { uid } of status.targets) {
    const state = status.servers[uid]?.state ?? "down";
    counts.set(state, (counts.get(state) ?? 0) + 1);
  }
  const text = [...counts].map(([state, count]) => `${count} ${state}`).join(", ");
  return text === "" ? "none" : text;
}

export const certificateForm: TableForm<Certificate> = {
  columns: ["NAME", "STATE", "FROM", "DOMAINS", "VALID UNTIL", "RENEWED", "MESSAGE"],
  row: (certificate) => {
    const { spec, status, metadata } = certificate;
    const domains = status.domains.length > 0 ? status.domains : (spec.acme?.domains ?? []);
    return [
      metadata.name,
      stateCell(certificate, status.state),
      spec.acme ? new URL(spec.acme.directory).host : "own",
      domains.join(", "),
      (status.notAfter ?? "").slice(0, 10),
      spec.acme ? (status.renewAt ?? "").slice(0, 10) : "by you",
      status.message,
    ];
  },
};
