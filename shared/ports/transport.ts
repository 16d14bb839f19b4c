import type { Extent } from "../domain/extent.ts";
import type { DiskReader, DiskWriter } from "./disk.ts";
import type { HostConnection } from "./host.ts";

/** How drivers reach machines and disks. The mover wires the real ones; tests may wire others. */
export interface Transports {
  connectHost(
    host: HostAddress,
    options?: { readonly signal?: AbortSignal },
  ): Promise<HostConnection>;
  openNbd(address: NbdAddress, options: NbdReadOptions): Promise<DiskReader>;
  openNbdForWriting(address: NbdAddress, options: NbdWriteOptions): Promise<DiskWriter>;
}

/** A machine and how to log in. The secret parts come from the parameter store and live in memory only. */
export type HostAddress =
  | { readonly kind: "local" }
  | {
      readonly kind: "ssh";
      readonly host: string;
      readonly port: number;
      readonly user: string;
      /** Accepted host keys in OpenSSH's form, `ssh-ed25519 AAAA…`; at least one. */
      readonly hostKeys: readonly string[];
      readonly login:
        | { readonly kind: "key"; readonly privateKey: string; readonly passphrase?: string }
        | { readonly kind: "password"; readonly password: string };
    };

/** Where an NBD server listens. `via` tunnels through a host's SSH connection. */
export type NbdAddress =
  | { readonly kind: "unix"; readonly path: string; readonly via?: HostConnection }
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      readonly via?: HostConnection;
      readonly tls?: {
        readonly ca?: string;
        readonly serverName?: string;
        readonly certificate?: string;
        readonly privateKey?: string;
      };
    };

export type NbdReadOptions = {
  readonly exportName: string;
  /**
   * What decides the extents' kinds. `allocation`: data or zero. `dirty-bitmap`: not dirty is `unchanged`;
   * dirty and zero is `zero`. `depth`: anything not in the top layer (`qemu:allocation-depth` ≠ 1) is `unchanged`.
   * A missing context fails with `changes.unknown`, never silently.
   * `list`: kinds come from a list (e.g. of `rbd diff`): listed ranges are data or zero, the rest is `otherwise`.
   */
  readonly extents:
    | { readonly by: "allocation" }
    | { readonly by: "dirty-bitmap"; readonly name: string }
    | { readonly by: "depth" }
    | {
        readonly by: "list";
        readonly list: readonly Extent[];
        readonly otherwise: "unchanged" | "zero";
      };
  readonly signal?: AbortSignal;
  /** Time limit for connecting and for any one reply, in milliseconds; default 60 000. */
  readonly timeoutMs?: number;
};

export type NbdWriteOptions = {
  readonly exportName: string;
  readonly startsZeroed: boolean;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
};
