import { strict as assert } from "node:assert";
import { createKeyedHash } from "@holdfast/shared/repository/chunk/keyed-hash";
import { openRecordInto } from "@holdfast/shared/repository/chunk/sealed-chunk";
import { corrupt, sameBytes } from "@holdfast/shared/repository/format/bytes";
import {
  identityKey,
  type RepositorySecrets,
  sealKey,
} from "@holdfast/shared/repository/keys/secrets";
import { packName } from "@holdfast/shared/repository/pack/pack";
import type { OpenRequest } from "./restore-messages.ts";

/** Decrypts, inflates and hashes chunks. Fails with `object.corrupt` unless each chunk's bytes have its id. */
export function createChunkOpener(secrets: RepositorySecrets) {
  const hash = createKeyedHash(identityKey(secrets, "chunk-id"));
  const { repositoryId } = secrets;
  return (
    request: OpenRequest,
  ): { readonly bytes: Uint8Array; readonly ids: readonly Uint8Array[] } => {
    const { packId } = request;
    const packKey = sealKey(secrets, request.epoch, "pack", packId).key;
    const total = request.chunks.reduce((sum, { length }) => sum + length, 0);
    const bytes = new Uint8Array(request.into ?? new ArrayBuffer(total), 0, total);
    let at = 0;
    const ids = request.chunks.map((chunk) => {
      const from = chunk.offset - request.offset;
      assert(from >= 0 && from + chunk.storedLength <= request.bytes.length);
      const sealed = request.bytes.subarray(from, from + chunk.storedLength);
      const place = { repositoryId, packId, packKey, offset: chunk.offset };
      const plain = bytes.subarray(at, at + chunk.length);
      openRecordInto(place, sealed, plain);
      const id = hash.hash(plain);
      if (!sameBytes(id, chunk.id)) {
        throw corrupt(`chunk at ${chunk.offset} of ${packName(packId)} has other contents`);
      }
      at += plain.length;
      return id;
    });
    return { bytes, ids };
  };
}
