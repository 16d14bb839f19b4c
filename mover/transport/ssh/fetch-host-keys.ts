import { Failure } from "@holdfast/shared/domain/failure";
import ssh2, { type ServerHostKeyAlgorithm } from "ssh2";
import { hostKeyAlgorithms } from "./algorithms.ts";
import { fingerprint, formatHostKey, keyType } from "./host-key.ts";

export type PresentedHostKey = {
  readonly type: string;
  /** OpenSSH's form, to be pinned in `HostAddress.hostKeys`. */
  readonly key: string;
  /** `SHA256:…`, to be compared by a person. */
  readonly fingerprint: string;
};

/**
 * The keys that the server at this address presents now, best type first, without logging in. They prove nothing by
 * themselves: show the fingerprints to someone who can compare them. Fails with `network.unreachable` or `network.timeout`.
 */
export async function fetchHostKeys(
  host: string,
  port: number,
  options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<readonly PresentedHostKey[]> {
  const keys: PresentedHostKey[] = [];
  for (const algorithms of hostKeyAlgorithms.values()) {
    options.signal?.throwIfAborted();
    const blob = await fetchKey({ host, port, algorithms, timeoutMs: options.timeoutMs ?? 15_000 });
    const type = blob === undefined ? undefined : keyType(blob);
    if (blob === undefined || type === undefined) continue;
    keys.push({ type, key: formatHostKey({ type, blob }), fingerprint: fingerprint(blob) });
  }
  if (keys.length === 0) {
    const message = `the SSH server at ${host}:${port} has no host key of a supported type`;
    throw new Failure("unsupported", { message });
  }
  return keys;
}

/** Undefined if the server has no key of that kind. */
function fetchKey(options: {
  readonly host: string;
  readonly port: number;
  readonly algorithms: readonly ServerHostKeyAlgorithm[];
  readonly timeoutMs: number;
}): Promise<Buffer | undefined> {
  const { host, port, algorithms, timeoutMs } = options;
  return new Promise((resolve, reject) => {
    const client = new ssh2.Client();
    let key: Buffer | undefined;
    const settle = (error: Error & { level?: string }): void => {
      client.destroy();
      if (key !== undefined) resolve(key);
      else if (error.level === "handshake") resolve(undefined);
      else {
        const code = error.level === "client-timeout" ? "network.timeout" : "network.unreachable";
        const message = `cannot get the host key of ${host}:${port}: ${error.message}`;
        reject(new Failure(code, { message, cause: error }));
      }
    };
    client.on("error", settle);
    client.on("close", () => settle(new Error("the connection was closed")));
    client.connect({
      host,
      port,
      username: "holdfast",
      readyTimeout: timeoutMs,
      algorithms: { serverHostKey: [...algorithms] },
      hostVerifier: (presented: Buffer) => {
        key = Buffer.from(presented);
        return false;
      },
    });
  });
}
