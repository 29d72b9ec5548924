import { describe, expect, test } from "vitest";
import {
  parseConnections,
  parseDescription,
  parseFingerprint,
  parseMap,
  parseServers,
  parseStatistics,
} from "./runtime-texts.ts";

/** As HAProxy 2.6 answers. */
const states = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change
4 targets 1 holder - 2 0 1 1 605
4 targets 2 a.1 10.0.0.2 2 0 100 100 605
4 targets 3 b.1 10.0.0.3 0 0 100 100 2
4 targets 4 c.1 10.0.0.4 0 4 100 100 2
4 targets 5 d.1 10.0.0.5 1 0 100 100 2
`;
const stats = `# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,hrsp_5xx,req_tot,
targets,holder,0,0,2,0,,7,,,,,,,,0,0,
targets,a.1,1,0,3,5,,70,,,,,,1,2,4,,
targets,BACKEND,6,0,9,9,,100,,,,,,1,2,5,90,
`;
const connections = `# bkname/svname bkid/svid addr port - purge_delay used_cur used_max
targets/holder 4/1 - 0 - 5000 0 0
targets/a.1 4/2 10.0.0.2 80 - 0 2 1
targets/c.1 4/4 10.0.0.4 80 - 0 1 1
`;

describe("answers of HAProxy", () => {
  test("servers, without the holder", () => {
    expect(parseServers(states, stats, connections)).toEqual([
      { name: "a.1", uid: "a", state: "up", sessions: 3, connections: 2 },
      { name: "b.1", uid: "b", state: "down", sessions: 0, connections: 0 },
      { name: "c.1", uid: "c", state: "maintenance", sessions: 0, connections: 1 },
      { name: "d.1", uid: "d", state: "up", sessions: 0, connections: 0 },
    ]);
  });

  test("connections of other workers count as well", () => {
    const text = `  sl  local_address rem_address   st tx_queue
   0: 0100007F:4650 00000000:0000 0A 00000000:00000000
   1: 01004064:C350 0200000A:0050 01 00000000:00000000
   2: 01004064:C351 0200000A:0050 02 00000000:00000000
   3: 01004064:C352 0200000A:0050 06 00000000:00000000
`;
    expect(parseConnections(text)).toEqual(new Map([["10.0.0.2:80", 2]]));
    const withPorts = states
      .replace("srv_time_since_last_change", "srv_port")
      .replace("100 100 605", "100 100 80");
    expect(parseServers(withPorts, "", "", parseConnections(text))[0]?.connections).toBe(2);
  });

  test("statistics of the whole and of servers", () => {
    expect(parseStatistics(stats)).toEqual([
      { uid: "a", requests: 70, errors: 4, sessions: 3, queue: 1 },
      { uid: undefined, requests: 100, errors: 5, sessions: 9, queue: 6 },
    ]);
    // 10 of the 100 wait for their answers.
    // What was held is part of the whole, and of no server.
    const held = stats.replaceAll("targets,", "held,").split("\n").slice(1).join("\n");
    expect(parseStatistics(`${stats.trim()}\n${held}`)).toEqual([
      { uid: "a", requests: 70, errors: 4, sessions: 3, queue: 1 },
      { uid: undefined, requests: 200, errors: 10, sessions: 18, queue: 12 },
    ]);
  });

  test("what it is, certificates and maps", () => {
    expect(parseDescription("Name: HAProxy\nnode: vm\ndescription: 12ab\n")).toBe("12ab");
    expect(parseDescription("Name: HAProxy\n")).toBe("");
    expect(parseFingerprint("Status: Used\nSHA1 FingerPrint: 26FC06\nSubject: /CN=a")).toBe("26FC06");
    expect(parseFingerprint("Can't display the certificate: Not found.")).toBe("");
    expect(parseMap("0x55 tok tok.abc\n0x56 b c\n")).toEqual(
      new Map([
        ["tok", "tok.abc"],
        ["b", "c"],
      ]),
    );
    expect(parseMap("Unknown map identifier.")).toEqual(new Map());
  });
});
