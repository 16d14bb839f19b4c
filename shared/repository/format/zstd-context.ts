import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";

/**
 * zstd with a context that is kept from one call to the next, which Node has no public way to: making a context costs as much as compressing
 * 128 KiB, and inflating them half as much again. Below the streams that Node gives lies a synchronous `writeSync`. It is used only if
 * it is there and has shown that it works; nothing depends on it but time. Not for use by several threads: each has its own.
 */
export type ZstdContext = {
  /** Bytes written to `out`; undefined when this call could not be done here: then Node's public functions decide. */
  readonly run: (bytes: Uint8Array, out: Uint8Array) => number | undefined;
};

type Native = (
  flush: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  out: Uint8Array,
  outOffset: number,
  outLength: number,
) => void;

type Opened = {
  readonly write: Native;
  readonly left: Uint32Array;
  readonly isBroken: () => boolean;
};

/** Compresses to one frame; `out` must have room for what does not compress. */
export function createCompressContext(level: number): ZstdContext {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  const open = (): Opened | undefined => native(createZstdCompress({ params }));
  return createContext(open, constants.ZSTD_e_end);
}

/** Inflates one whole frame that says in its header that it has as many bytes as `out`. */
export function createInflateContext(): ZstdContext {
  const context = createContext(() => native(createZstdDecompress()), constants.ZSTD_e_continue);
  return {
    // Something else would leave the context with more to take or to give, and the next frame would be mixed with it.
    run: (bytes, out) => (isFrameOf(bytes, out.length) ? context.run(bytes, out) : undefined),
  };
}

function createContext(open: () => Opened | undefined, flush: number): ZstdContext {
  let opened: Opened | undefined;
  let isOffered = true;
  return {
    run: (bytes, out) => {
      if (opened === undefined && isOffered) {
        opened = open();
        isOffered = opened !== undefined;
      }
      if (opened === undefined || out.length === 0) return undefined;
      const { write, left } = opened;
      write(flush, bytes, 0, bytes.length, out, 0, out.length);
      // After a failure the stream has closed itself.
      const [outLeft = 0, inLeft = 0] = left;
      if (!opened.isBroken() && inLeft === 0) return out.length - outLeft;
      opened = undefined;
      return undefined;
    },
  };
}

function native(stream: ReturnType<typeof createZstdCompress>): Opened | undefined {
  // What fails here, fails again in the public function, and is told from there.
  stream.on("error", () => undefined);
  const handle: unknown = Reflect.get(stream, "_handle");
  const left: unknown = Reflect.get(stream, "_writeState");
  if (typeof handle !== "object" || handle === null || !(left instanceof Uint32Array)) {
    return undefined;
  }
  const write: unknown = Reflect.get(handle, "writeSync");
  if (typeof write !== "function" || left.length !== 2) return undefined;
  return {
    write: (...args) => void Reflect.apply(write, handle, args),
    left,
    isBroken: () => stream.destroyed,
  };
}

const magic = 0xfd2fb528;
const dictionaryBytes = [0, 1, 2, 4];

/** Whether these are all bytes of one zstd frame of that content, by its own header and those of its blocks (RFC 8878, 3.1.1). */
function isFrameOf(bytes: Uint8Array, contentBytes: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < 16 || view.getUint32(0, true) !== magic) return false;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  let at = 5 + Number(!isSingleSegment) + (dictionaryBytes[descriptor & 3] ?? 0);
  switch (descriptor >>> 6) {
    case 0:
      if (!isSingleSegment || view.getUint8(at) !== contentBytes) return false;
      at += 1;
      break;
    case 1:
      if (view.getUint16(at, true) + 256 !== contentBytes) return false;
      at += 2;
      break;
    case 2:
      if (view.getUint32(at, true) !== contentBytes) return false;
      at += 4;
      break;
    default:
      return false;
  }
  while (at + 3 <= bytes.length) {
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >>> 1) & 3;
    if (type === 3) return false;
    at += 3 + (type === 1 ? 1 : header >>> 3);
    if ((header & 1) === 1) return at + (descriptor & 4) === bytes.length;
  }
  return false;
}
