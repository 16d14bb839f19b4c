import type { CallOptions } from "./object-store.ts";

/**
 * A service that keeps keys and never gives them out (AWS KMS): it seals a few bytes and opens them again for whoever it allows.
 * `context` is authenticated and written to the service's log; the same must be given to open.
 *
 * Failures: `auth.denied`, `key-service.refused` (no such key, disabled, about to be deleted, other context), `aws.failed`.
 */
export interface KeyService {
  /** `keyId` is the key's ARN, `plain` at most 4096 bytes. */
  encrypt(request: KeyServiceRequest, options?: CallOptions): Promise<Uint8Array>;
  decrypt(request: KeyServiceRequest, options?: CallOptions): Promise<Uint8Array>;
}

export type KeyServiceRequest = {
  readonly keyId: string;
  readonly bytes: Uint8Array;
  readonly context: Readonly<Record<string, string>>;
};
