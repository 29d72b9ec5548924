/** What makes daemons on one host distinct, so that several run side by side without meeting. */
export interface HostConfig {
  /**
   * Prefix of everything on the host that has a global name: namespaces, cgroups, nft tables, units. At most 16 of
   * a-z, 0-9 and '-'. A user's daemon is `strata`.
   */
  namespace: string;
  /** State that must survive: store, volumes, guests' run data. Mode 0700. */
  stateDir: string;
  /** Sockets and pid files; gone after a reboot. */
  runDir: string;
  /** Images; may be shared by several daemons. */
  imageDir: string;
  /** Networks without a range of their own get a /24 from here. */
  networkPool: string;
  /** First host id of the range that guests' ids are shifted to, and of QEMU processes (one id each, above it). */
  idBase: number;
}
