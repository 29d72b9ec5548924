/** Of the library, what is used here. */
declare module "acme-client" {
  export interface Challenge {
    token: string;
  }

  export interface AutoOptions {
    csr: Uint8Array;
    challengePriority: readonly string[];
    skipChallengeVerification: boolean;
    challengeCreateFn(authorization: unknown, challenge: Challenge, keyAuthorization: string): Promise<void>;
    challengeRemoveFn(authorization: unknown, challenge: Challenge): Promise<void>;
  }

  export class Client {
    constructor(options: {
      directoryUrl: string;
      accountKey: string;
      backoffMin: number;
      backoffMax: number;
      backoffAttempts: number;
    });
    createAccount(account: { termsOfServiceAgreed: boolean; contact?: string[] }): Promise<unknown>;
    /** @throws when there is none yet. */
    getAccountUrl(): string;
    /** The chain, PEM. */
    auto(options: AutoOptions): Promise<string>;
  }

  export const crypto: {
    createPrivateEcdsaKey(curve: "P-256"): Promise<Buffer>;
    createCsr(request: { altNames: string[] }, key: string): Promise<[key: Buffer, request: Buffer]>;
  };

  /** Its HTTP client; the settings are those of the whole process. */
  export const axios: { defaults: { httpsAgent: unknown; timeout: number } };
}
