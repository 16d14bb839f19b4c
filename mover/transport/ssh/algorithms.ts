import type { Algorithms, ServerHostKeyAlgorithm } from "ssh2";

/** Fast ciphers first: AES-GCM has hardware support and needs no separate MAC; the rest is for older servers. */
export const ciphers: NonNullable<Algorithms["cipher"]> = [
  "aes128-gcm@openssh.com",
  "aes256-gcm@openssh.com",
  "chacha20-poly1305@openssh.com",
  "aes128-ctr",
  "aes256-ctr",
];

/** Algorithms to ask for by the type of the key; RSA keys sign with SHA-2 only. */
export const hostKeyAlgorithms: ReadonlyMap<string, readonly ServerHostKeyAlgorithm[]> = new Map([
  ["ssh-ed25519", ["ssh-ed25519"]],
  ["ecdsa-sha2-nistp256", ["ecdsa-sha2-nistp256"]],
  ["ecdsa-sha2-nistp384", ["ecdsa-sha2-nistp384"]],
  ["ecdsa-sha2-nistp521", ["ecdsa-sha2-nistp521"]],
  ["ssh-rsa", ["rsa-sha2-512", "rsa-sha2-256"]],
]);

/** The pinned types first, so that a server with several keys presents the one that is known. */
export function orderHostKeyAlgorithms(pinnedTypes: readonly string[]): ServerHostKeyAlgorithm[] {
  const types = [...new Set([...pinnedTypes, ...hostKeyAlgorithms.keys()])];
  return types.flatMap((type) => [...(hostKeyAlgorithms.get(type) ?? [])]);
}
