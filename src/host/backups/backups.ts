/**
 * Backups of disks in repositories: deduplicated, compressed and encrypted with a key that whoever owns the repository
 * holds. The contract; restic-backups.ts keeps it with restic's format and program.
 */

/** Where a repository is: a directory of this host, or a bucket of a service that speaks S3. */
export type RepositoryPlace =
  | { type: "directory"; path: string }
  | {
      type: "s3";
      /** `https://HOST[:PORT]` or `http://…`. */
      endpoint: string;
      bucket: string;
      prefix?: string | undefined;
      region?: string | undefined;
      accessKeyId: string;
      secretAccessKey: string;
    };

export interface RepositoryAccess {
  /** Of the resource: operations of one repository come one after the other. */
  uid: string;
  place: RepositoryPlace;
  /** Opens it. In no message, log line or argument. */
  key: string;
}

export interface OperationOptions {
  signal: AbortSignal;
  /** Bytes of the disk so far; at most about once a second. */
  onProgress?: (bytes: number) => void;
}

export interface Saved {
  /** Names what was saved, in its repository. */
  snapshot: string;
  /** Of the disk, holes included. */
  readBytes: number;
  /** Of data that the repository did not have yet, before compression. */
  addedBytes: number;
}

/** What a look at all of a repository found. */
export interface Examined {
  intact: boolean;
  /** Nothing damaged is in the way of what is saved from now on: it stores such pieces anew. True when intact. */
  mended: boolean;
  /** For people; empty when intact. */
  message: string;
}

export interface Backups {
  /**
   * Opens the repository. One that was never `known` is made where there is nothing; of one that was, another or none in its
   * place is an error. Returns its id. Idempotent.
   * @throws Forbidden for the wrong key, or a directory that is not allowed; Unavailable when it is not there or does not
   * answer.
   */
  open(repository: RepositoryAccess, known: string | undefined, signal: AbortSignal): Promise<string>;
  /**
   * Saves a disk: a file as it is, which nobody may write to meanwhile, or its bytes as they come. What an interrupted call of the
   * same `tag` left is taken out first, so there is at most one per tag. What bytes throw is thrown, and then nothing bears the
   * tag that counts: the next call takes it out. @throws as open, without making anything.
   */
  save(
    repository: RepositoryAccess,
    disk: string | AsyncIterable<Uint8Array>,
    tag: string,
    options: OperationOptions,
  ): Promise<Saved>;
  /** The same for an archive, which is no disk and cannot be restored as one. */
  saveArchive(
    repository: RepositoryAccess,
    bytes: AsyncIterable<Uint8Array>,
    tag: string,
    options: OperationOptions,
  ): Promise<Saved>;
  /**
   * Calls `use` with a saved archive of `sizeBytes`. Each block is checked on its way, and the bytes end only when all of
   * them have come. @throws as restore, and what `use` throws.
   */
  readArchive<Result>(
    repository: RepositoryAccess,
    saved: { snapshot: string; sizeBytes: number },
    use: (bytes: AsyncIterable<Uint8Array>) => Promise<Result>,
    options: OperationOptions,
  ): Promise<Result>;
  /**
   * Writes a saved disk into a new sparse file of `sizeBytes`. Each block is checked on its way; a failure leaves a file
   * that is not complete. @throws as open; Unavailable where it would take the space that is kept for writers; Internal when what was saved is damaged or gone.
   */
  restore(
    repository: RepositoryAccess,
    snapshot: string,
    file: { path: string; sizeBytes: number },
    options: OperationOptions,
  ): Promise<void>;
  /** Takes out what was saved with these tags and the data that nothing else needs. Absent is success. @throws as open. */
  forget(repository: RepositoryAccess, tags: readonly string[], signal: AbortSignal): Promise<void>;
  /**
   * Reads all of the repository and compares it with its checksums. What is damaged in a directory is put aside. @throws as open, not for what it finds.
   */
  examine(repository: RepositoryAccess, signal: AbortSignal): Promise<Examined>;
  /** The path of a file that is there while `use` runs, for what is restored only to be looked at. */
  withScratch<Result>(name: string, use: (path: string) => Promise<Result>): Promise<Result>;
  /** Removes what a killed predecessor left. */
  recover(): Promise<void>;
}
