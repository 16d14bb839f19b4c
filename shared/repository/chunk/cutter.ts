import { blockBytes, type RepositorySettings } from "../format/settings.ts";
import { identityKey, type RepositorySecrets } from "../keys/secrets.ts";

/**
 * Cuts a disk's bytes into chunks. Cut points fall on 4 KiB blocks and are decided by a seeded hash over a sample of the
 * block's words, so equal data is cut equally wherever it lies, and boundaries tell an observer nothing.
 * Blocks of zeros belong to no chunk and end the chunk before them.
 */
export type Cutter = {
  /**
   * The next bytes; a multiple of the block size except at the end of a disk. Where `offset` does not continue the call
   * before, the open chunk ends. `bytes` must begin on a 4-byte boundary of its buffer.
   */
  readonly push: (offset: number, bytes: Uint8Array) => void;
  /** Ends the open chunk. */
  readonly end: () => void;
};

/** `bytes` is only valid during the call. */
export type EmitChunk = (offset: number, bytes: Uint8Array) => void;

export type CutRule = {
  readonly positions: Uint16Array;
  readonly start: number;
  readonly factor: number;
  readonly threshold: number;
  readonly blocksMin: number;
  readonly blocksMax: number;
};

const sampledWords = 32;
const wordsPerSample = blockBytes / 4 / sampledWords;

export function cutRule(secrets: RepositorySecrets, settings: RepositorySettings): CutRule {
  const seed = identityKey(secrets, "cut", 8 + sampledWords);
  const view = new DataView(seed.buffer, seed.byteOffset);
  const blocksMin = settings.chunkBytesMin / blockBytes;
  const expected = settings.chunkBytesTarget / blockBytes - blocksMin;
  return {
    positions: Uint16Array.from(
      { length: sampledWords },
      (_, index) => index * wordsPerSample + ((seed[8 + index] ?? 0) & (wordsPerSample - 1)),
    ),
    start: view.getInt32(0, true),
    factor: view.getInt32(4, true) | 1,
    threshold: Math.floor(2 ** 32 / expected),
    blocksMin,
    blocksMax: settings.chunkBytesMax / blockBytes,
  };
}

const zeros = Buffer.alloc(64 * 1024);

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const length = Math.min(zeros.length, bytes.length - at);
    if (zeros.compare(bytes, at, at + length, 0, length) !== 0) return false;
  }
  return true;
}

export function createCutter(rule: CutRule, emit: EmitChunk): Cutter {
  const { positions, start, factor, threshold, blocksMin, blocksMax } = rule;
  const carry = new Uint8Array(blocksMax * blockBytes);
  let carried = 0;
  let carryOffset = 0;
  let next = -1;

  function end(): void {
    if (carried === 0) return;
    const length = carried;
    carried = 0;
    emit(carryOffset, carry.subarray(0, length));
  }

  function push(offset: number, bytes: Uint8Array): void {
    if (offset !== next) end();
    next = offset + bytes.length;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
    const blocks = Math.ceil(bytes.length / blockBytes);
    let from = carried > 0 ? 0 : -1;
    let run = carried / blockBytes;

    function close(to: number): void {
      if (carried > 0) {
        carry.set(bytes.subarray(0, to), carried);
        carried += to;
        end();
      } else {
        emit(offset + from, bytes.subarray(from, to));
      }
      from = -1;
      run = 0;
    }

    for (let block = 0; block < blocks; block += 1) {
      const at = block * blockBytes;
      const to = Math.min(at + blockBytes, bytes.length);
      const word = at >>> 2;
      if (
        (to - at < blockBytes || (words[word] === 0 && words[word + 512] === 0)) &&
        zeros.compare(bytes, at, to, 0, to - at) === 0
      ) {
        if (from >= 0) close(at);
        continue;
      }
      if (from < 0) from = at;
      run += 1;
      // Only a disk's last block can be partial; nothing follows it that a cut could keep apart.
      if (to - at < blockBytes) break;
      if (run >= blocksMax) {
        close(to);
        continue;
      }
      if (run < blocksMin) continue;
      let hash = start;
      for (let index = 0; index < sampledWords; index += 1) {
        hash = Math.imul(hash ^ (words[word + (positions[index] ?? 0)] ?? 0), factor);
        hash ^= hash >>> 15;
      }
      hash = Math.imul(hash ^ (hash >>> 13), 0x85ebca6b);
      if ((hash ^ (hash >>> 16)) >>> 0 < threshold) close(to);
    }
    if (from < 0) return;
    if (carried === 0) carryOffset = offset + from;
    carry.set(bytes.subarray(from), carried);
    carried += bytes.length - from;
  }

  return { push, end };
}
