import type { FailureRecord } from "@holdfast/shared/domain/failure";
import type { RepositorySettings } from "@holdfast/shared/repository/format/settings";
import type { SharedChunkIndex } from "@holdfast/shared/repository/index/chunk-index";
import type { RepositorySecrets } from "@holdfast/shared/repository/keys/secrets";
import type { DamagedPlaces } from "@holdfast/shared/repository/pack/damage";
import type { PackRecords } from "@holdfast/shared/repository/pack/pack";

/**
 * What a transfer and its workers say to each other. Buffers lie in memory that all threads see, because transferring them keeps every
 * thread's garbage collector at work; a buffer is its receiver's alone until it is sent back, to be used again.
 */
export type EngineSetup = {
  readonly secrets: RepositorySecrets;
  readonly settings: RepositorySettings;
  readonly index: SharedChunkIndex | undefined;
  /** 8 bytes: what the ids of new packs begin with. */
  readonly sessionId: Uint8Array;
  /** Packs in hexadecimal whose chunks are not to be found: they are about to be removed. */
  readonly condemned: ReadonlySet<string>;
  /** Places that are known to be lost: what was there is stored again. */
  readonly damaged: DamagedPlaces["packs"];
  /** Open every sealed pack again before it is uploaded. */
  readonly checkSealed: boolean;
};

export type ToEngine =
  | {
      readonly type: "leaf";
      readonly index: number;
      readonly offset: number;
      readonly lengthBytes: number;
      /** The previous point's leaf and the positions of the entries that stay. */
      readonly previous:
        | {
            readonly summary: Uint8Array;
            readonly entries: Uint8Array;
            readonly kept: readonly number[];
          }
        | undefined;
    }
  | {
      readonly type: "data";
      readonly offset: number;
      readonly length: number;
      readonly buffer: SharedArrayBuffer;
    }
  | {
      readonly type: "check";
      readonly offset: number;
      readonly length: number;
      readonly claim: "unchanged" | "zero";
      readonly id: Uint8Array | undefined;
      readonly isFirst: boolean;
      readonly isLast: boolean;
      readonly buffer: SharedArrayBuffer;
    }
  | { readonly type: "leaf-end" }
  | { readonly type: "flush" }
  | { readonly type: "uploaded"; readonly packId: string; readonly buffer: SharedArrayBuffer };

export type FromEngine =
  | { readonly type: "buffer"; readonly buffer: SharedArrayBuffer; readonly dataBytes: number }
  | {
      readonly type: "pack";
      readonly packId: Uint8Array;
      readonly epoch: number;
      readonly buffer: SharedArrayBuffer;
      readonly length: number;
      readonly records: PackRecords;
      readonly bytesNew: number;
    }
  | {
      readonly type: "leaf";
      readonly index: number;
      /** Undefined: the whole leaf is a hole. */
      readonly stored:
        | {
            readonly summary: Uint8Array;
            readonly entries: Uint8Array;
            readonly digest: Uint8Array;
          }
        | undefined;
      /** Packs of this engine that the leaf needs; in hexadecimal. */
      readonly ownPacks: readonly string[];
    }
  | { readonly type: "flushed" }
  | { readonly type: "failed"; readonly failure: FailureRecord };
