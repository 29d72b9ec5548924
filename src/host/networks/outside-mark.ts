/**
 * The structure of a network routes packets with this mark (and mask) out by the uplink, whatever the routes of their
 * subnet say: `ip rule fwmark MARK/MARK`. The firewall sets it in prerouting, before routing, on what must get out also
 * where a subnet has no way to the outside of its own:
 *
 * - answers in connections that came in by the uplink through a published port or an address
 *   (`ct direction reply ct status dnat`),
 * - what a card with a floating address sends.
 *
 * The host cannot tell two networks with the same range apart, so whatever else leaves by the uplink for another place
 * than the host's end must have been given the uplink's inner address (masquerading in the namespace, both families).
 */
export const outsideMark = 0x5300_0000;
