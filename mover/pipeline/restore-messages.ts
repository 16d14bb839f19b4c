import type { FailureRecord } from "@holdfast/shared/domain/failure";
import type { RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";

/** Sealed chunks that lie close together in one pack. */
export type OpenRequest = {
  readonly number: number;
  readonly packId: Uint8Array;
  readonly epoch: number;
  /** Offset in the pack of the first byte of `bytes`. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly chunks: readonly SealedChunkPlace[];
  /** Takes the chunks' bytes and must hold them all; the asker uses it again. Without it they come in memory of their own. */
  readonly into?: SharedArrayBuffer;
};

export type SealedChunkPlace = {
  /** In the pack. */
  readonly offset: number;
  readonly storedLength: number;
  readonly length: number;
  readonly id: Uint8Array;
};

/** The chunks' bytes, one after the other, and the ids that these bytes were found to have. */
export type OpenAnswer =
  | {
      readonly number: number;
      readonly bytes: Uint8Array;
      readonly ids: readonly Uint8Array[];
    }
  | { readonly number: number; readonly failure: FailureRecord };

export type OpenerSetup = { readonly secrets: RepositorySecrets };
