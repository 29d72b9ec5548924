/** What the metadata service tells an instance about itself. */
export interface InstanceFacts {
  uid: string;
  project: string;
  name: string;
  /** With its domain. */
  hostname: string;
  type: "vm" | "container";
  cpus: number;
  memoryMib: number;
  /** Of the image it was made from; absent when that is gone. */
  imageUid?: string;
  /** RFC 3339. */
  createdAt: string;
  access: {
    enabled: boolean;
    /** `optional`: requests without a session token are answered, too. */
    tokens: "required" | "optional";
  };
  userData?: string;
  /** Lines as in authorized_keys. */
  publicKeys: readonly { name: string; text: string }[];
  /** Its own card first. */
  cards: readonly CardFacts[];
}

export interface CardFacts {
  uid: string;
  /** Its number inside the guest, as in `eth1`; left out where only the order is known. */
  device?: number;
  macAddress: string;
  ipAddress: string;
  ipv6Address?: string;
  /** Floating address that leads to it. */
  publicAddress?: string;
  securityGroups: readonly { name: string; uid: string }[];
  subnet?: { uid: string; cidr: string; ipv6Cidr?: string | undefined };
  network?: { uid: string; cidr?: string | undefined; ipv6Cidr?: string | undefined };
}
